// Packed weights: their size, what they say of themselves, and that nothing but a pack of this layer for this ISA is
// ever read.
#include <string>

#include "exact.h"

namespace {

using namespace tests;

using Bytes = std::vector<unsigned char>;

bool bad_pack(const void* packed, size_t bytes) {
  squeezebert_conv_shape shape = {-1, -1, -1, -1};
  return squeezebert_packed_shape(packed, bytes, &shape, nullptr) == SQUEEZEBERT_BAD_PACK && shape.out_channels == -1;
}
bool bad_pack(const Bytes& pack) { return bad_pack(pack.data(), pack.size()); }

// The bound: 1.02 times the plain weight, at all of SqueezeBERT's shapes and BERT-base's. int8 has a scale of 4
// bytes and perhaps a sum of 4 for each column, of 192 bytes at least.
void test_size() {
  for (const int64_t groups : {1, 4}) {
    for (const squeezebert_conv_shape& shape :
         {squeezebert_conv_shape{768, 768, groups, 1}, {3072, 768, groups, 1}, {768, 3072, groups, 1}}) {
      const auto elements = static_cast<double>(shape.out_channels * shape.in_channels / groups);
      for_each_kernels([&] {
        size_t bytes = 0;
        OK(squeezebert_packed_size(&shape, g_format, &bytes));
        constexpr double kElementBytes[] = {4.0, 2.0, 2.0, 1.0 + 8.0 / 192};
        CHECK(static_cast<double>(bytes) <= 1.02 * elements * kElementBytes[g_format]);
      });
    }
  }
}

void test_shape() {
  for (const squeezebert_conv_shape& shape :
       {squeezebert_conv_shape{1, 1, 1, 1}, {33, 15, 3, 5}, {40, 64, 8, 1}, {1, 3, 1, 31}}) {
    Conv conv(shape.out_channels, shape.in_channels, shape.groups, 1, shape.kernel_size);
    for_each_kernels([&] {
      conv.pack();
      squeezebert_conv_shape got{};
      squeezebert_format format{};
      OK(squeezebert_packed_shape(conv.packed.data(), conv.packed.size(), &got, &format));
      CHECK(format == g_format);
      CHECK(got.out_channels == shape.out_channels && got.in_channels == shape.in_channels);
      CHECK(got.groups == shape.groups && got.kernel_size == shape.kernel_size);
      const Bytes first = conv.packed;
      conv.pack();
      CHECK(conv.packed == first);  // every byte is written, always the same
      // Room to spare is left alone, and a pack with something after it is a pack.
      Bytes larger(first.size() + 9, 0x5a);
      OK(squeezebert_pack(&shape, g_format, conv.weight.data(), larger.data(), larger.size()));
      CHECK(std::equal(first.begin(), first.end(), larger.begin()) && larger.back() == 0x5a);
      CHECK(!bad_pack(larger));
    });
  }
}

void test_damaged() {
  Conv conv(40, 24, 4, 2);
  for_each_isa([&] {
    conv.pack();
    for (size_t length = 0; length < conv.packed.size(); length += length < 140 ? 1 : 511) {
      CHECK(bad_pack(conv.packed.data(), length));
    }
    CHECK(bad_pack(conv.packed.data(), conv.packed.size() - 1));
    for (size_t i = 0; i < 128; ++i) {  // the header
      for (const int flip : {1, 0x80}) {
        Bytes damaged = conv.packed;
        damaged[i] = static_cast<unsigned char>(damaged[i] ^ flip);
        CHECK(bad_pack(damaged));
      }
    }
    CHECK(bad_pack(Bytes(1000, 0)));
    Bytes plain(conv.weight.size() * sizeof(float));
    memcpy(plain.data(), conv.weight.data(), plain.size());
    CHECK(bad_pack(plain));
  });
}

// A header that was made rather than damaged: its checksum is right, its numbers are not.
void test_forged() {
  Conv conv(40, 24, 4, 2);
  const auto forge = [&](size_t offset, int64_t value, size_t size) {
    Bytes forged = conv.packed;
    memcpy(&forged[offset], &value, size);
    uint64_t hash = 14695981039346656037u, word;  // FNV-1a over words
    for (size_t i = 0; i < 120; i += sizeof word) {
      memcpy(&word, &forged[i], sizeof word);
      hash = (hash ^ word) * 1099511628211u;
    }
    memcpy(&forged[120], &hash, sizeof hash);
    return forged;
  };
  for_each_isa([&] {
    conv.pack();
    CHECK(forge(88, 40, 8) == conv.packed);           // this is where out_channels lies, and how the checksum is made
    for (const size_t offset : {88, 96, 104, 112}) {  // out_channels, in_channels, groups, kernel_size
      for (const int64_t value : {int64_t{0}, int64_t{-1}, int64_t{-4}, INT64_MIN, INT64_MAX, int64_t{1} << 40}) {
        CHECK(bad_pack(forge(offset, value, 8)));
      }
    }
    CHECK(bad_pack(forge(8, 3, 4)));      // another version
    CHECK(bad_pack(forge(12, 2, 4)));     // other numerics
    CHECK(bad_pack(forge(16, 'x', 1)));   // another product
    CHECK(bad_pack(forge(48, 77, 4)));    // no format
    CHECK(bad_pack(forge(52, 1000, 4)));  // other panels
    CHECK(bad_pack(forge(112, 2, 8)));    // an even kernel
    CHECK(bad_pack(forge(88, 4000, 8)));  // more channels than there are bytes
  });
}

// A pack for each product, used while each other one is in use for its format.
void test_foreign_product() {
  const Floats input = random(24, 3);
  for_each_kernels([&] {
    const char* name = nullptr;
    OK(squeezebert_active_product(g_format, &name));
    Conv conv(40, 24, 4, 2);
    conv.pack();
    const squeezebert_linear layer = conv.linear();
    for (int to = 0; const char* other = squeezebert_product_name(to); ++to) {
      const std::string format = squeezebert_format_name(g_format);
      if (std::string(other).compare(0, format.size(), format) != 0) continue;
      OK(squeezebert_force_product(other));
      Floats output(40, 7.0f);
      const squeezebert_status status =
          squeezebert_grouped_conv1x1(Context(), 1, input.data(), 24, &layer, output.data(), 40);
      CHECK(status == (other == name ? SQUEEZEBERT_OK : SQUEEZEBERT_BAD_PACK));
      if (other == name) continue;
      CHECK(output == Floats(40, 7.0f));
      CHECK(std::string(squeezebert_last_error())
                .find("layer: expected a weight packed for " + std::string(other) + ", got one for " + name + ",") ==
            0);
    }
  });
}

// What was packed comes back, rounded to the format, and packs to the same bytes again. (int8.cc: as whole numbers.)
void test_unpack() {
  Conv conv(40, 24, 4, 2, 3);
  for_each_kernels([&] {
    if (g_format == SQUEEZEBERT_INT8) return;
    conv.pack();
    Conv again = conv;
    again.weight.assign(conv.weight.size(), 7.0f);
    const size_t bytes = again.weight.size() * sizeof(float);
    OK(squeezebert_unpack(conv.packed.data(), conv.packed.size(), again.weight.data(), bytes));
    for (size_t i = 0; i < conv.weight.size(); ++i) CHECK(again.weight[i] == stored(conv.weight[i]));
    again.pack();
    CHECK(again.packed == conv.packed);
    CHECK(squeezebert_unpack(conv.packed.data(), conv.packed.size(), again.weight.data(), bytes - 4) ==
          SQUEEZEBERT_INVALID_ARGUMENT);
    CHECK(squeezebert_unpack(conv.packed.data(), conv.packed.size(), nullptr, bytes) == SQUEEZEBERT_INVALID_ARGUMENT);
  });
}

// Packs come out of files at any offset; floats must lie at theirs.
void test_alignment() {
  Conv conv(40, 24, 4, 2);
  for_each_isa([&] {
    conv.pack();
    Bytes shifted(conv.packed.size() + 16);
    for (const size_t offset : {1, 2, 3}) {
      memcpy(&shifted[offset], conv.packed.data(), conv.packed.size());
      squeezebert_conv_shape shape;
      CHECK(squeezebert_packed_shape(&shifted[offset], conv.packed.size(), &shape, nullptr) ==
            SQUEEZEBERT_INVALID_ARGUMENT);
      CHECK(squeezebert_pack(&conv.shape, SQUEEZEBERT_FLOAT32, conv.weight.data(), &shifted[offset],
                             conv.packed.size()) == SQUEEZEBERT_INVALID_ARGUMENT);
    }
    memcpy(&shifted[4], conv.packed.data(), conv.packed.size());
    const squeezebert_linear there = conv.linear(), here = {&shifted[4], conv.packed.size(), conv.bias.data()};
    const Floats input = random(24, 3);
    Floats expected(40), got(40);
    OK(squeezebert_grouped_conv1x1(Context(), 1, input.data(), 24, &there, expected.data(), 40));
    OK(squeezebert_grouped_conv1x1(Context(), 1, input.data(), 24, &here, got.data(), 40));
    CHECK(same_bits(got, expected));
  });
}

}  // namespace

int main() {
  test_size();
  test_shape();
  test_damaged();
  test_forged();
  test_foreign_product();
  test_unpack();
  test_alignment();
  return check_result();
}
