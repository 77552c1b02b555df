// The C API: a layer in one piece of memory.
//
// A header, then its parts, each at a multiple of 64 bytes from the header: the floats, then the weights in the order
// in which they are used, so that one is followed by the next. Weights have headers of their own (engine/pack.cc).
#include <array>
#include <cinttypes>
#include <cstring>

#include "api/layer.h"
#include "engine/checksum.h"

using namespace squeezebert;

namespace {

constexpr int kBiases = 6, kNorms = 2, kWeights = 6;
constexpr int kFirstNorm = kBiases, kFirstWeight = kFirstNorm + 2 * kNorms, kParts = kFirstWeight + kWeights;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t key_format;  // squeezebert_format
  uint32_t value_format;
  float epsilon[kNorms];
  uint32_t reserved;  // 0
  uint64_t bytes;     // of the layer
  // Where the parts begin: the biases (0: there is none), weight and bias of each layer norm, the weights.
  uint64_t begin[kParts];
  uint64_t more_reserved[10];  // 0
  uint64_t checksum;           // of all that stands before it
};
static_assert(sizeof(Header) == 256);

constexpr char kMagic[9] = "SQZBLAYR";
constexpr uint32_t kVersion = 1;
constexpr uint64_t kLine = 64;

constexpr squeezebert_linear squeezebert_layer::* kLinear[kWeights] = {
    &squeezebert_layer::query,          &squeezebert_layer::key,          &squeezebert_layer::value,
    &squeezebert_layer::post_attention, &squeezebert_layer::intermediate, &squeezebert_layer::output};
constexpr Linear Layer::* kDecoded[kWeights] = {&Layer::query,          &Layer::key,          &Layer::value,
                                                &Layer::post_attention, &Layer::intermediate, &Layer::output};
constexpr squeezebert_layer_norm squeezebert_layer::* kNorm[kNorms] = {&squeezebert_layer::post_attention_layer_norm,
                                                                       &squeezebert_layer::output_layer_norm};

struct Part {
  const void* data;
  uint64_t bytes;
};

// In Header's order.
std::array<Part, kParts> parts_of(const squeezebert_layer& layer, const Layer& decoded) {
  const auto floats = [](const float* data, int64_t count) {
    return Part{data, data ? static_cast<uint64_t>(count) * sizeof(float) : 0};
  };
  const int64_t channels = decoded.query.weight.shape.in_channels;
  std::array<Part, kParts> parts{};
  for (int i = 0; i < kWeights; ++i) {
    const squeezebert_linear& linear = layer.*kLinear[i];
    const Weight& weight = (decoded.*kDecoded[i]).weight;
    parts[i] = floats(linear.bias, weight.shape.out_channels);
    const int64_t header = weight.panels - static_cast<const char*>(linear.packed);
    parts[kFirstWeight + i] = {linear.packed, static_cast<uint64_t>(header + weight.bytes())};
  }
  for (int i = 0; i < kNorms; ++i) {
    parts[kFirstNorm + 2 * i] = floats((layer.*kNorm[i]).weight, channels);
    parts[kFirstNorm + 2 * i + 1] = floats((layer.*kNorm[i]).bias, channels);
  }
  return parts;
}

// No sum can wrap: what is added up lies in memory.
Header plan(const squeezebert_layer& layer, const std::array<Part, kParts>& parts) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof header.magic);
  header.version = kVersion;
  header.key_format = static_cast<uint32_t>(layer.key_format);
  header.value_format = static_cast<uint32_t>(layer.value_format);
  for (int i = 0; i < kNorms; ++i) header.epsilon[i] = (layer.*kNorm[i]).epsilon;
  header.bytes = sizeof header;
  for (int i = 0; i < kParts; ++i) {
    if (!parts[i].data) continue;
    header.begin[i] = header.bytes;
    header.bytes += (parts[i].bytes + kLine - 1) / kLine * kLine;
  }
  header.checksum = checksum(header);
  return header;
}

squeezebert_status decode(const squeezebert_layer* layer, Layer* decoded) {
  SQUEEZEBERT_TRY(check_struct("squeezebert_layer", layer, sizeof *layer));
  return read_layer(*layer, layer->struct_size, /*channels=*/0, decoded);
}

squeezebert_status read_header(const void* packed, size_t bytes, Header* header) {
  if (!packed) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "packed: expected a packed layer, got NULL");
  SQUEEZEBERT_TRY(check_alignment("packed", packed, alignof(float)));
  if (bytes < sizeof *header) {
    return fail(SQUEEZEBERT_BAD_PACK, "packed: expected a packed layer, got %zu bytes, less than its header", bytes);
  }
  std::memcpy(header, packed, sizeof *header);
  if (std::memcmp(header->magic, kMagic, sizeof header->magic) != 0 || header->checksum != checksum(*header)) {
    return fail(SQUEEZEBERT_BAD_PACK, "packed: expected a packed layer, got %zu bytes that are not one", bytes);
  }
  if (header->version != kVersion) {
    return fail(SQUEEZEBERT_BAD_PACK, "packed: expected version %u of a packed layer, got %u: pack the layer again",
                kVersion, header->version);
  }
  if (bytes < header->bytes) {
    return fail(SQUEEZEBERT_BAD_PACK, "packed: expected %" PRIu64 " bytes of packed layer, got %zu", header->bytes,
                bytes);
  }
  return SQUEEZEBERT_OK;
}

// That part i is where it may be, and of so many bytes.
squeezebert_status check_part(const Header& header, int i, uint64_t bytes) {
  const uint64_t begin = header.begin[i];
  const bool inside =
      begin >= sizeof header && begin % kLine == 0 && begin <= header.bytes && bytes <= header.bytes - begin;
  if (inside || (i < kBiases && begin == 0)) return SQUEEZEBERT_OK;
  return fail(SQUEEZEBERT_BAD_PACK,
              "packed: expected a packed layer, got one whose part %d lies outside of its %" PRIu64 " bytes", i,
              header.bytes);
}

// What the header says, whose parts may still be shorter than the layer makes them.
squeezebert_layer view_of(const Header& header, const void* packed) {
  const char* const base = static_cast<const char*>(packed);
  const auto floats = [&](int i) { return reinterpret_cast<const float*>(base + header.begin[i]); };
  squeezebert_layer view = SQUEEZEBERT_LAYER_INIT;
  view.key_format = static_cast<squeezebert_format>(header.key_format);
  view.value_format = static_cast<squeezebert_format>(header.value_format);
  for (int i = 0; i < kWeights; ++i) {
    const uint64_t begin = header.begin[kFirstWeight + i];
    view.*kLinear[i] = {base + begin, header.bytes - begin, header.begin[i] ? floats(i) : nullptr};
  }
  for (int i = 0; i < kNorms; ++i) {
    view.*kNorm[i] = {floats(kFirstNorm + 2 * i), floats(kFirstNorm + 2 * i + 1), header.epsilon[i]};
  }
  return view;
}

}  // namespace

extern "C" {

squeezebert_status squeezebert_packed_layer_size(const squeezebert_layer* layer, size_t* bytes) {
  Layer decoded;
  SQUEEZEBERT_TRY(decode(layer, &decoded));
  if (!bytes) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "bytes: expected where to put the size, got NULL");
  *bytes = plan(*layer, parts_of(*layer, decoded)).bytes;
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_pack_layer(const squeezebert_layer* layer, void* packed, size_t packed_bytes) {
  Layer decoded;
  SQUEEZEBERT_TRY(decode(layer, &decoded));
  const std::array<Part, kParts> parts = parts_of(*layer, decoded);
  const Header header = plan(*layer, parts);
  if (!packed || packed_bytes < header.bytes) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "packed: expected room for %" PRIu64 " bytes, got %zu", header.bytes,
                packed ? packed_bytes : 0);
  }
  const Matrix output = flat("packed", packed, static_cast<int64_t>(header.bytes));
  SQUEEZEBERT_TRY(check_matrix(output));
  SQUEEZEBERT_TRY(check_apart(output, *layer, decoded));
  char* const base = static_cast<char*>(packed);
  std::memcpy(base, &header, sizeof header);
  for (int i = 0; i < kParts; ++i) {
    if (!parts[i].data) continue;
    char* const begin = base + header.begin[i];
    std::memcpy(begin, parts[i].data, parts[i].bytes);
    std::memset(begin + parts[i].bytes, 0, (kLine - parts[i].bytes % kLine) % kLine);
  }
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_read_layer(const void* packed, size_t packed_bytes, squeezebert_layer* layer) {
  SQUEEZEBERT_TRY(check_struct("squeezebert_layer", layer, sizeof *layer));
  Header header;
  SQUEEZEBERT_TRY(read_header(packed, packed_bytes, &header));
  for (int i = 0; i < kParts; ++i) SQUEEZEBERT_TRY(check_part(header, i, 0));
  squeezebert_layer view = view_of(header, packed);
  Layer decoded;
  const squeezebert_status status = decode(&view, &decoded);
  // A member that no call would take was packed by nobody.
  if (status != SQUEEZEBERT_OK) return status == SQUEEZEBERT_INVALID_ARGUMENT ? SQUEEZEBERT_BAD_PACK : status;
  const std::array<Part, kParts> parts = parts_of(view, decoded);
  for (int i = 0; i < kParts; ++i) SQUEEZEBERT_TRY(check_part(header, i, parts[i].bytes));
  for (int i = 0; i < kWeights; ++i) (view.*kLinear[i]).packed_bytes = parts[kFirstWeight + i].bytes;
  view.struct_size = layer->struct_size;
  std::memcpy(layer, &view, sizeof view);
  return SQUEEZEBERT_OK;
}

}  // extern "C"
