#include "engine/pack.h"

#include <cinttypes>
#include <cstring>

namespace squeezebert {

namespace {

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t panel_columns;
  char isa[8];
  squeezebert_conv_shape shape;
  uint64_t checksum;  // of all that stands before it
};
static_assert(sizeof(Header) == 64, "the panels start at the next cache line");

constexpr char kMagic[9] = "SQZBPACK";
constexpr uint32_t kVersion = 1;

uint64_t checksum(const Header& header) {  // FNV-1a
  uint64_t hash = 14695981039346656037u;
  const auto* bytes = reinterpret_cast<const unsigned char*>(&header);
  for (size_t i = 0; i < offsetof(Header, checksum); ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
  return hash;
}

}  // namespace

squeezebert_status check_shape(const squeezebert_conv_shape& s) {
  constexpr int64_t kMost = INT32_MAX;
  if (s.out_channels < 1 || s.in_channels < 1 || s.out_channels > kMost || s.in_channels > kMost) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT,
                "shape: expected 1 to 2^31 - 1 channels, got %" PRId64 " in and %" PRId64 " out", s.in_channels,
                s.out_channels);
  }
  if (s.groups < 1 || s.in_channels % s.groups != 0 || s.out_channels % s.groups != 0) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT,
                "groups: expected a divisor of %" PRId64 " input and %" PRId64 " output channels, got %" PRId64,
                s.in_channels, s.out_channels, s.groups);
  }
  if (s.kernel_size < 1 || s.kernel_size % 2 == 0 || s.kernel_size > kMost) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "kernel_size: expected an odd number, got %" PRId64, s.kernel_size);
  }
  // Every product of these four below 2^62, so that no size can overflow.
  if (static_cast<double>(s.in_channels) * static_cast<double>(s.out_channels) * static_cast<double>(s.kernel_size) >
      0x1p56) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "shape: the weight has more than 2^56 elements");
  }
  return SQUEEZEBERT_OK;
}

size_t packed_bytes(const Kernels& kernels, const squeezebert_conv_shape& shape) {
  const Weight weight{&kernels, shape, nullptr};
  return sizeof(Header) + static_cast<size_t>(shape.kernel_size * weight.all_panels() * weight.panel_bytes());
}

void pack(const Kernels& kernels, const squeezebert_conv_shape& shape, const float* source, void* packed) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof header.magic);
  header.version = kVersion;
  header.panel_columns = static_cast<uint32_t>(kernels.panel_columns);
  std::memcpy(header.isa, kernels.name, strnlen(kernels.name, sizeof header.isa));
  header.shape = shape;
  header.checksum = checksum(header);
  std::memcpy(packed, &header, sizeof header);

  auto* panel = static_cast<char*>(packed) + sizeof header;
  const Weight weight{&kernels, shape, panel};
  const int64_t stride = weight.depth() * shape.kernel_size;
  for (int64_t tap = 0; tap < shape.kernel_size; ++tap) {
    for (int64_t group = 0; group < shape.groups; ++group) {
      const int64_t group_columns = weight.group_columns();
      for (int64_t column = 0; column < group_columns; column += kernels.panel_columns) {
        const int64_t left = group_columns - column;
        kernels.pack_panel(source + (group * group_columns + column) * stride + tap, stride, shape.kernel_size,
                           weight.depth(),
                           static_cast<int>(left < kernels.panel_columns ? left : kernels.panel_columns), panel);
        panel += weight.panel_bytes();
      }
    }
  }
}

squeezebert_status check_pack_alignment(const char* argument, const void* packed) {
  const size_t past = reinterpret_cast<uintptr_t>(packed) % alignof(float);
  if (past == 0) return SQUEEZEBERT_OK;
  return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected memory aligned to %zu bytes, got an address %zu past that",
              argument, alignof(float), past);
}

squeezebert_status read_pack(const char* argument, const void* packed, size_t bytes, Weight* weight) {
  const Kernels* const usable[] = {active_kernels(), active_kernels(SQUEEZEBERT_FLOAT16)};
  if (!usable[0]) return SQUEEZEBERT_UNSUPPORTED_ISA;
  if (!packed) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected a packed weight, got NULL", argument);
  SQUEEZEBERT_TRY(check_pack_alignment(argument, packed));
  Header header;
  if (bytes < sizeof header) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected a packed weight, got %zu bytes, less than its header", argument,
                bytes);
  }
  std::memcpy(&header, packed, sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof header.magic) != 0 || header.checksum != checksum(header)) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected a packed weight, got %zu bytes that are not one", argument, bytes);
  }
  if (header.version != kVersion) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected pack format %u, got %u: pack the weight again", argument, kVersion,
                header.version);
  }
  const Kernels* kernels = nullptr;
  for (const Kernels* candidate : usable) {
    if (std::strncmp(header.isa, candidate->name, sizeof header.isa) == 0 &&
        header.panel_columns == static_cast<uint32_t>(candidate->panel_columns)) {
      kernels = candidate;
    }
  }
  if (!kernels) {
    return fail(SQUEEZEBERT_BAD_PACK,
                "%s: expected a weight packed for %s or %s, got one for %.8s, %u columns wide: pack the weight again",
                argument, usable[0]->name, usable[1]->name, header.isa, header.panel_columns);
  }
  if (check_shape(header.shape) != SQUEEZEBERT_OK) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected a packed weight, got one of an impossible shape", argument);
  }
  const size_t expected = packed_bytes(*kernels, header.shape);
  if (bytes < expected) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected %zu bytes of packed weight, got %zu", argument, expected, bytes);
  }
  *weight = {kernels, header.shape, static_cast<const char*>(packed) + sizeof header};
  return SQUEEZEBERT_OK;
}

}  // namespace squeezebert
