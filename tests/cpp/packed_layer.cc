// Packed layers: their size, that they compute what the layer they were packed from does, wherever they lie, and that
// nothing but a packed layer for the products in use is ever read.
#include <cinttypes>
#include <string>

#include "support.h"

namespace {

using namespace tests;

using Bytes = std::vector<unsigned char>;

constexpr int64_t kChannels = 24, kWide = 60, kHeads = 4, kTokens = 9;
constexpr int64_t kGroups[6] = {4, 4, 2, 1, 4, 12};
constexpr squeezebert_status kInvalid = SQUEEZEBERT_INVALID_ARGUMENT, kBad = SQUEEZEBERT_BAD_PACK;
// Where a header holds what.
constexpr size_t kVersionAt = 8, kKeyFormatAt = 12, kEpsilonAt = 20, kBytesAt = 32, kBeginAt = 40, kChecksumAt = 248;

// Memory for a layer, aligned to a cache line as the panels in it want to be, and `shift` bytes more.
struct Memory {
  explicit Memory(size_t bytes, size_t shift = 0) : all(bytes + 64 + shift), size(bytes), shift(shift) {}
  unsigned char* data() { return all.data() + (64 - reinterpret_cast<uintptr_t>(all.data()) % 64) % 64 + shift; }
  Bytes all;
  size_t size, shift;
};

Memory pack(const squeezebert_layer& layer, size_t shift = 0) {
  size_t bytes = 0;
  OK(squeezebert_packed_layer_size(&layer, &bytes));
  CHECK(bytes % 64 == 0);
  Memory memory(bytes, shift);
  memset(memory.data(), 0x5a, bytes);
  OK(squeezebert_pack_layer(&layer, memory.data(), bytes));
  return memory;
}

squeezebert_layer view_of(Memory& memory) {
  squeezebert_layer view = SQUEEZEBERT_LAYER_INIT;
  OK(squeezebert_read_layer(memory.data(), memory.size, &view));
  return view;
}

Floats run(const squeezebert_layer& layer, const Floats& input) {
  const int32_t offsets[] = {0, kTokens};
  const squeezebert_encoder_shape shape = {sizeof shape, 1, offsets, kHeads, 0};
  Floats output(input.size(), 7.0f);
  OK(squeezebert_encoder(Context(), &shape, &layer, 1, input.data(), kChannels, nullptr, output.data(), kChannels));
  return output;
}

EncoderLayer packed_parts() {
  EncoderLayer layer(kChannels, kWide, kGroups, 3);
  layer.pack();
  return layer;
}

void test_computes_the_same() {
  const Floats input = random(kTokens * kChannels, 1);
  for (const bool biases : {true, false}) {
    EncoderLayer parts(kChannels, kWide, kGroups, 3);
    if (!biases) parts.key.bias.clear();
    parts.output_norm.epsilon = 0.25f;
    for_each_kernels([&] {
      parts.pack();
      if (g_format != SQUEEZEBERT_FLOAT32) parts.value_format = SQUEEZEBERT_FLOAT32;
      const squeezebert_layer layer = parts.get();
      const Floats expected = run(layer, input);
      Memory memory = pack(layer), again = pack(layer);
      CHECK(memcmp(memory.data(), again.data(), memory.size) == 0);  // every byte is written, always the same
      const squeezebert_layer view = view_of(memory);
      CHECK(view.key_format == layer.key_format && view.value_format == layer.value_format);
      CHECK((view.key.bias != nullptr) == biases && view.output_layer_norm.epsilon == 0.25f);
      CHECK(same_bits(run(view, input), expected));
      for (const void* part : {view.query.packed, view.output.packed, static_cast<const void*>(view.value.bias),
                               static_cast<const void*>(view.output_layer_norm.weight)}) {
        CHECK(reinterpret_cast<uintptr_t>(part) % 64 == 0);
        CHECK(part > memory.data() && part < memory.data() + memory.size);
      }
      // It can be moved, to wherever floats may lie, and a view packs to the same bytes.
      Memory moved(memory.size, 4);
      memcpy(moved.data(), memory.data(), memory.size);
      CHECK(same_bits(run(view_of(moved), input), expected));
      Memory copy = pack(view);
      CHECK(copy.size == memory.size && memcmp(copy.data(), memory.data(), copy.size) == 0);
    });
  }
}

// Hardly larger than its parts.
void test_size() {
  EncoderLayer parts(768, 3072, {4, 4, 4, 1, 4, 4}, 1);
  parts.pack();
  size_t expected = 4 * (9 * 768 + 3072);
  for (const Conv* conv :
       {&parts.query, &parts.key, &parts.value, &parts.post_attention, &parts.intermediate, &parts.output}) {
    expected += conv->packed.size();
  }
  const squeezebert_layer layer = parts.get();
  size_t bytes = 0;
  OK(squeezebert_packed_layer_size(&layer, &bytes));
  CHECK(bytes >= expected && bytes <= expected + 256 + 16 * 64);
}

// What a view points to may be written anew.
void test_written_in_place() {
  const Floats input = random(kTokens * kChannels, 1);
  EncoderLayer parts = packed_parts();
  Memory memory = pack(parts.get());
  for (float& weight : parts.key.weight) weight *= 1.5f;
  parts.pack();
  const squeezebert_layer view = view_of(memory);
  const auto at = static_cast<const unsigned char*>(view.key.packed) - memory.data();
  OK(squeezebert_pack(&parts.key.shape, SQUEEZEBERT_FLOAT32, parts.key.weight.data(), memory.data() + at,
                      view.key.packed_bytes));
  CHECK(same_bits(run(view_of(memory), input), run(parts.get(), input)));
  Memory again = pack(parts.get());
  CHECK(memcmp(again.data(), memory.data(), memory.size) == 0);
}

void check_refused(squeezebert_status got, squeezebert_status expected, const std::string& text, int line) {
  const std::string error = squeezebert_last_error();
  if (got == expected && error == text) return;
  fprintf(stderr, "packed_layer.cc:%d: status %d, expected %d\n  got:      %s\n  expected: %s\n", line, got, expected,
          error.c_str(), text.c_str());
  ++check_failures;
}
#define REFUSED(call, status, text) check_refused(call, status, text, __LINE__)

void test_refused() {
  const EncoderLayer parts = packed_parts();
  const squeezebert_layer good = parts.get();
  squeezebert_layer layer = good;
  size_t bytes = 77;
  const auto refused = [&](squeezebert_status status, const std::string& text) {
    REFUSED(squeezebert_packed_layer_size(&layer, &bytes), status, text);
    Memory memory(1 << 16);
    REFUSED(squeezebert_pack_layer(&layer, memory.data(), memory.size), status, text);
    CHECK(bytes == 77 && memory.data()[0] == 0);
    layer = good;
  };
  REFUSED(squeezebert_packed_layer_size(nullptr, &bytes), kInvalid, "squeezebert_layer: expected a struct, got NULL");
  REFUSED(squeezebert_packed_layer_size(&good, nullptr), kInvalid, "bytes: expected where to put the size, got NULL");
  layer.struct_size = 8;
  refused(kInvalid, "squeezebert_layer: expected a struct_size of " + std::to_string(sizeof good) + ", got 8");
  layer.query = good.intermediate;
  refused(kBad, "query: expected a weight of 24 output channels, got 60");
  layer.output = good.key;
  refused(kBad, "output: expected a weight of 60 input channels, got 24");
  layer.value.packed_bytes = 3;
  refused(kBad, "value: expected a packed weight, got 3 bytes, less than its header");
  layer.output_layer_norm.weight = nullptr;
  refused(kInvalid, "output_layer_norm: expected a weight and a bias, got NULL");
  layer.key_format = static_cast<squeezebert_format>(77);
  CHECK(squeezebert_packed_layer_size(&layer, &bytes) == kInvalid);
  CHECK(std::string(squeezebert_last_error()).find("key_format: expected a squeezebert_format") == 0);

  Memory memory = pack(good);
  const std::string room = "packed: expected room for " + std::to_string(memory.size) + " bytes, got ";
  REFUSED(squeezebert_pack_layer(&good, nullptr, memory.size), kInvalid, room + "0");
  REFUSED(squeezebert_pack_layer(&good, memory.data(), memory.size - 1), kInvalid,
          room + std::to_string(memory.size - 1));
  CHECK(squeezebert_pack_layer(&good, memory.data() + 2, memory.size) == kInvalid);
  CHECK(std::string(squeezebert_last_error()).find("packed: ") == 0);
  const squeezebert_layer view = view_of(memory);
  REFUSED(squeezebert_pack_layer(&view, memory.data(), memory.size), kInvalid,
          "packed: expected memory that is not query's, got rows that overlap");
  layer = good;
  layer.output_layer_norm = view.output_layer_norm;
  REFUSED(squeezebert_pack_layer(&layer, memory.data(), memory.size), kInvalid,
          "packed: expected memory that is not output_layer_norm's, got rows that overlap");
}

void test_no_packed_layer() {
  const EncoderLayer parts = packed_parts();
  Memory memory = pack(parts.get());
  unsigned char* const data = memory.data();
  const Bytes good(data, data + memory.size);
  squeezebert_layer view = SQUEEZEBERT_LAYER_INIT;
  const auto read = [&](size_t size) { return squeezebert_read_layer(data, size, &view); };
  const std::string size = std::to_string(memory.size), shorter = std::to_string(memory.size - 1);

  REFUSED(squeezebert_read_layer(nullptr, 999, &view), kInvalid, "packed: expected a packed layer, got NULL");
  REFUSED(squeezebert_read_layer(data, memory.size, nullptr), kInvalid,
          "squeezebert_layer: expected a struct, got NULL");
  REFUSED(read(255), kBad, "packed: expected a packed layer, got 255 bytes, less than its header");
  REFUSED(read(memory.size - 1), kBad, "packed: expected " + size + " bytes of packed layer, got " + shorter);
  for (const size_t shift : {1, 2, 3}) {
    Memory odd(memory.size, shift);
    memcpy(odd.data(), data, memory.size);
    CHECK(squeezebert_read_layer(odd.data(), memory.size, &view) == kInvalid);
  }
  for (size_t i = 0; i < 256; ++i) {
    data[i] ^= 0x80;
    REFUSED(read(memory.size), kBad, "packed: expected a packed layer, got " + size + " bytes that are not one");
    data[i] = good[i];
  }
  CHECK(squeezebert_read_layer(parts.query.packed.data(), parts.query.packed.size(), &view) == kBad);

  // A header that was made rather than damaged: its checksum is right, its numbers are not.
  const auto forged = [&](size_t at, uint64_t value, size_t value_bytes, const std::string& text) {
    memcpy(data + at, &value, value_bytes);
    uint64_t hash = 14695981039346656037u, word;  // FNV-1a over words
    for (size_t i = 0; i < kChecksumAt; i += sizeof word) {
      memcpy(&word, data + i, sizeof word);
      hash = (hash ^ word) * 1099511628211u;
    }
    memcpy(data + kChecksumAt, &hash, sizeof hash);
    CHECK(read(memory.size) == kBad);
    if (std::string(squeezebert_last_error()).find(text) != 0) {
      fprintf(stderr, "forged at %zu: got %s, expected %s\n", at, squeezebert_last_error(), text.c_str());
      ++check_failures;
    }
    memcpy(data, good.data(), good.size());
  };
  forged(kVersionAt, 2, 4, "packed: expected version 1 of a packed layer, got 2: pack the layer again");
  forged(kKeyFormatAt, 77, 4, "key_format: expected a squeezebert_format");
  forged(kEpsilonAt, 0xff800000, 4, "post_attention_layer_norm: expected a finite epsilon");
  forged(kBytesAt, memory.size + 64, 8, "packed: expected " + std::to_string(memory.size + 64) + " bytes of packed");
  for (size_t part = 0; part < 16; ++part) {
    const std::string outside = "packed: expected a packed layer, got one whose part " + std::to_string(part) + " lies";
    for (const uint64_t begin : {uint64_t{64}, uint64_t{260}, uint64_t{memory.size + 64}, UINT64_MAX - 63}) {
      forged(kBeginAt + 8 * part, begin, 8, outside);
    }
    if (part >= 6) forged(kBeginAt + 8 * part, 0, 8, outside);
    if (part < 10) forged(kBeginAt + 8 * part, memory.size, 8, outside);  // begins where the layer ends
    if (part >= 10) forged(kBeginAt + 8 * part, 256, 8, "");              // a bias, which is no weight
  }
  CHECK(view.query.packed == nullptr);  // nothing was ever filled in
  OK(read(memory.size));
  CHECK(view.query.packed != nullptr);
}

// A layer for each product, read while each other one is in use for its format.
void test_foreign_product() {
  for_each_kernels([&] {
    const char* name = nullptr;
    OK(squeezebert_active_product(g_format, &name));
    Memory memory = pack(packed_parts().get());
    for (int to = 0; const char* other = squeezebert_product_name(to); ++to) {
      const std::string format = squeezebert_format_name(g_format);
      if (std::string(other).compare(0, format.size(), format) != 0) continue;
      OK(squeezebert_force_product(other));
      squeezebert_layer view = SQUEEZEBERT_LAYER_INIT;
      const squeezebert_status status = squeezebert_read_layer(memory.data(), memory.size, &view);
      CHECK(status == (other == name ? SQUEEZEBERT_OK : kBad));
      if (other == name) continue;
      CHECK(std::string(squeezebert_last_error())
                .find("query: expected a weight packed for " + std::string(other) + ", got one for " + name + ",") ==
            0);
    }
  });
}

// A struct of a later version is filled in where it asks for nothing new.
void test_later_struct() {
  Memory memory = pack(packed_parts().get());
  struct {
    squeezebert_layer known = SQUEEZEBERT_LAYER_INIT;
    int64_t more = 0;
  } later;
  later.known.struct_size = sizeof later;
  OK(squeezebert_read_layer(memory.data(), memory.size, &later.known));
  CHECK(later.known.struct_size == sizeof later && later.known.query.packed != nullptr);
  OK(squeezebert_pack_layer(&later.known, Memory(memory.size).data(), memory.size));
}

}  // namespace

int main() {
  test_computes_the_same();
  test_size();
  test_written_in_place();
  test_refused();
  test_no_packed_layer();
  test_foreign_product();
  test_later_struct();
  return check_result();
}
