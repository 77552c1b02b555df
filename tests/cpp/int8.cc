// int8 against its definition (squeezebert.h), written out here in plain C++: the same bits, on every product.
#include <climits>

#include "exact.h"

namespace {

using namespace tests;

struct Row {
  std::vector<int> values;
  float scale = 0.0f;
};

Row quantize(const Floats& x, float levels) {
  Row row{std::vector<int>(x.size()), 0.0f};
  float most = 0.0f;
  for (const float value : x) {
    if (!std::isfinite(value)) return {row.values, NAN};
    most = std::max(most, fabsf(value));
  }
  if (most < 0x1p-100f) return row;
  row.scale = most / levels;
  const float inverse = levels / most;
  for (size_t i = 0; i < x.size(); ++i) row.values[i] = static_cast<int>(nearbyintf(x[i] * inverse));
  return row;
}

float multiply(const Row& left, const Row& right, float start) {
  int64_t sum = 0;
  for (size_t k = 0; k < left.values.size(); ++k) sum += left.values[k] * right.values[k];
  return fmaf(static_cast<float>(sum) * left.scale, right.scale, start);
}

// Column `out` of one tap.
Row column(const Conv& conv, int64_t out, int64_t tap) {
  const int64_t depth = conv.shape.in_channels / conv.shape.groups, taps = conv.shape.kernel_size;
  Floats values;
  for (int64_t k = 0; k < depth; ++k)
    values.push_back(conv.weight[static_cast<size_t>((out * depth + k) * taps + tap)]);
  return quantize(values, 127.0f);
}

// One sequence. The middle tap begins with the bias, the others add to what is there, in order.
Floats convolve(const Conv& conv, const Floats& x) {
  const auto [out_channels, in_channels, groups, taps] = conv.shape;
  const int64_t depth = in_channels / groups, tokens = static_cast<int64_t>(x.size()) / in_channels;
  Floats y(static_cast<size_t>(tokens * out_channels));
  std::vector<int64_t> order = {taps / 2};
  for (int64_t tap = 0; tap < taps; ++tap) {
    if (tap != taps / 2) order.push_back(tap);
  }
  for (const int64_t tap : order) {
    for (int64_t o = 0; o < out_channels; ++o) {
      const Row weight = column(conv, o, tap);
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t from = t + tap - taps / 2;
        if (from < 0 || from >= tokens) continue;
        const int64_t first = from * in_channels + o / (out_channels / groups) * depth;
        float& value = y[static_cast<size_t>(t * out_channels + o)];
        const float start = tap != taps / 2 ? value : conv.bias.empty() ? 0.0f : conv.bias[static_cast<size_t>(o)];
        value = multiply(quantize(slice(x, first, first + depth), 127.0f), weight, start);
      }
    }
  }
  return y;
}

bool equal(const Floats& a, const Floats& b) {  // any NaN is as good as any other
  for (size_t i = 0; i < a.size(); ++i) {
    if (memcmp(&a[i], &b[i], sizeof a[i]) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  }
  return a.size() == b.size();
}

void check_conv(Conv& conv, const Floats& x) {
  const Floats expected = convolve(conv, x);
  for_each_isa([&] {
    conv.pack();
    const squeezebert_linear layer = conv.linear();
    const auto tokens = static_cast<int32_t>(static_cast<int64_t>(x.size()) / conv.shape.in_channels);
    const int32_t offsets[] = {0, tokens};
    const Matrix in(x, conv.shape.in_channels, 3);
    Matrix y(tokens, conv.shape.out_channels, 1);
    OK(squeezebert_grouped_conv1d(Context(), 1, offsets, in.data(), in.stride(), &layer, y.data(), y.stride()));
    CHECK(equal(y.values(), expected) && y.edges_intact());
  });
}

// Depths about whole groups of 2, 4, 8 and 16 k; columns and rows about the tiles' edges.
void test_sizes() {
  for (const int64_t depth : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 192}) {
    Conv conv(2 * 33, 2 * depth, 2, 1);
    check_conv(conv, random(5 * 2 * depth, 2));
  }
  for (const int64_t columns : {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65}) {
    Conv conv(columns, 12, 1, 3);
    check_conv(conv, random(3 * 12, 4));
  }
  Conv conv(34, 20, 1, 5);
  for (int64_t rows = 0; rows <= 30; ++rows) check_conv(conv, random(rows * 20, 6));
  Conv wide(20, 24, 2, 7, 5);
  for (const int64_t rows : {1, 2, 3, 9}) check_conv(wide, random(rows * 24, 8));
}

// Where every product is as large as it can be: nothing saturates on the way.
void test_extremes() {
  for (const float sign : {1.0f, -1.0f}) {
    Conv conv(3, 1024, 1, 1);
    std::fill(conv.weight.begin(), conv.weight.end(), sign);
    check_conv(conv, Floats(2 * 1024, 1.0f));
    check_conv(conv, Floats(2 * 1024, -1.0f));
  }
}

// Rows and columns of zeros, of denormals and on both sides of 2^-100, of the largest floats, with NaN and infinity.
void test_special_values() {
  Conv conv(40, 24, 2, 9);
  Floats x = random(12 * 24, 10);
  const auto row = [&](int64_t r) { return x.begin() + r * 24; };
  std::fill_n(row(0), 24, 0.0f);
  std::fill_n(row(1), 12, -0.0f);  // one group of two
  for (int i = 0; i < 24; ++i) row(2)[i] *= 0x1p-140f;
  for (int i = 0; i < 24; ++i) row(3)[i] = i % 3 ? 0.0f : 0x1p-100f;
  for (int i = 0; i < 24; ++i) row(4)[i] = i % 3 ? 0.0f : nextafterf(0x1p-100f, 0.0f);
  for (int i = 0; i < 24; ++i) row(5)[i] *= 3.4028234664e38f;
  row(5)[0] = -3.4028234664e38f;
  row(6)[3] = NAN;
  row(7)[13] = INFINITY;
  row(8)[23] = -INFINITY;
  row(9)[0] = INFINITY, row(9)[1] = -NAN;
  uint32_t payload = 0xffc5a5a5;
  memcpy(&row(10)[20], &payload, sizeof payload);
  std::fill_n(conv.weight.begin(), 12, 0.0f);
  for (int i = 12; i < 24; ++i) conv.weight[static_cast<size_t>(i)] *= 0x1p-130f;
  conv.weight[30] = NAN;
  conv.weight[40] = -INFINITY;
  for (int i = 60; i < 72; ++i) conv.weight[static_cast<size_t>(i)] *= 0x1p126f;
  check_conv(conv, x);
  conv.bias.clear();
  check_conv(conv, x);
}

// Ties go to the even number: x * inverse is exactly half of an odd number.
void test_ties() {
  Conv conv(4, 256, 1, 11);
  Floats x(256);
  for (int i = 0; i < 254; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i - 127) / 2.0f;
  x[254] = 127.0f;
  x[255] = -126.5f;
  const Row quantized = quantize(x, 127.0f);
  CHECK(quantized.scale == 1.0f && quantized.values[0] == -64 && quantized.values[2] == -62 &&
        quantized.values[255] == -126);
  for (size_t k = 0; k < x.size(); ++k) conv.weight[k] = conv.weight[2 * 256 + k] = x[k];
  check_conv(conv, x);
}

// The mean of `keys` values, as attention with equal scores has it: every exponential is 1.
Floats mean_of(const Floats& value, int32_t keys, int64_t heads) {
  const int64_t channels = static_cast<int64_t>(value.size()) / keys, head_size = channels / heads;
  Floats mean;
  for (int64_t head = 0; head < heads; ++head) {
    std::vector<Row> rows;
    Floats scales;  // times the exponentials
    for (int64_t key = 0; key < keys; ++key) {
      const int64_t first = key * channels + head * head_size;
      rows.push_back(quantize(slice(value, first, first + head_size), 127.0f));
      scales.push_back(rows.back().scale);
    }
    const Row left = quantize(scales, 255.0f);
    for (size_t c = 0; c < static_cast<size_t>(head_size); ++c) {
      Row channel{{}, 1.0f};
      for (const Row& row : rows) channel.values.push_back(row.values[c]);
      mean.push_back(multiply(left, channel, 0.0f) * (1.0f / static_cast<float>(keys)));
    }
  }
  return mean;
}

// The exponentials of a softmax, times the values' scales, take 0 to 255.
void test_attention() {
  constexpr int64_t kHeads = 2, kHeadSize = 20, kChannels = kHeads * kHeadSize;
  for (const int32_t keys : {1, 2, 3, 5, 8, 31, 32, 33, 70}) {
    const Floats query = random(keys * kChannels, 1), key = random(keys * kChannels, 2),
                 value = random(keys * kChannels, 3);
    // Scores that differ so much that all but one exponential are 0; and scores that are all but equal.
    for (const float scale : {0.0f, 0.2f, 300.0f}) {
      Floats first;
      for_each_isa([&] {
        const int32_t offsets[] = {0, keys};
        const squeezebert_attention_shape shape = {sizeof shape, 1,     offsets,          offsets,         kHeads,
                                                   kHeadSize,    scale, SQUEEZEBERT_INT8, SQUEEZEBERT_INT8};
        Floats y(query.size());
        OK(squeezebert_attention(Context(), &shape, query.data(), kChannels, key.data(), kChannels, value.data(),
                                 kChannels, nullptr, y.data(), kChannels));
        if (first.empty()) first = y;
        CHECK(same_bits(y, first));
        if (scale == 0.0f) CHECK(same_bits(slice(y, 0, kChannels), mean_of(value, keys, kHeads)));
      });
    }
  }
}

// The C API's own quantization, the pack of what it gives, and back.
void test_quantized() {
  Conv conv(40, 24, 4, 2, 3);
  constexpr size_t depth = 6, taps = 3;
  conv.weight[5] = NAN;
  std::vector<int8_t> values(conv.weight.size()), got(conv.weight.size());
  Floats scales(40 * 3), got_scales(40 * 3);
  for_each_isa([&] {
    OK(squeezebert_quantize(&conv.shape, conv.weight.data(), values.data(), scales.data()));
    for (size_t o = 0; o < 40; ++o) {
      for (size_t tap = 0; tap < taps; ++tap) {
        const Row expected = column(conv, static_cast<int64_t>(o), static_cast<int64_t>(tap));
        CHECK(equal({scales[o * taps + tap]}, {expected.scale}));
        for (size_t k = 0; k < depth; ++k) CHECK(values[(o * depth + k) * taps + tap] == expected.values[k]);
      }
    }
    conv.pack();
    std::vector<unsigned char> packed(conv.packed.size(), 0xff);
    OK(squeezebert_pack_quantized(&conv.shape, values.data(), scales.data(), packed.data(), packed.size()));
    CHECK(packed == conv.packed);
    OK(squeezebert_unpack_quantized(packed.data(), packed.size(), got.data(), got_scales.data()));
    CHECK(got == values && equal(got_scales, scales));
    Floats weight(conv.weight.size());
    OK(squeezebert_unpack(packed.data(), packed.size(), weight.data(), weight.size() * sizeof(float)));
    for (size_t i = 0; i < weight.size(); ++i) {
      const float scale = scales[i / (depth * taps) * taps + i % taps];
      CHECK(equal({weight[i]}, {static_cast<float>(values[i]) * scale}));
    }
    // Any values may be packed, also the one that quantize() never gives.
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int8_t>(i % 256 - 128);
    OK(squeezebert_pack_quantized(&conv.shape, values.data(), scales.data(), packed.data(), packed.size()));
    OK(squeezebert_unpack_quantized(packed.data(), packed.size(), got.data(), got_scales.data()));
    CHECK(got == values);
  });
}

#define REFUSED(call, text)                                \
  do {                                                     \
    CHECK((call) != SQUEEZEBERT_OK);                       \
    if (std::string(squeezebert_last_error()) != (text)) { \
      fprintf(stderr, "%s\n", squeezebert_last_error());   \
      CHECK(!"the message above");                         \
    }                                                      \
  } while (0)

void test_errors() {
  Conv conv(4, 8, 1, 1);
  conv.pack();
  const squeezebert_conv_shape& shape = conv.shape;
  std::vector<int8_t> values(32);
  Floats scales(4);
  REFUSED(squeezebert_quantize(nullptr, conv.weight.data(), values.data(), scales.data()),
          "shape: expected a shape, got NULL");
  REFUSED(squeezebert_quantize(&shape, nullptr, values.data(), scales.data()), "weight: expected a weight, got NULL");
  REFUSED(squeezebert_quantize(&shape, conv.weight.data(), nullptr, scales.data()),
          "values: expected room for them, got NULL");
  REFUSED(squeezebert_quantize(&shape, conv.weight.data(), values.data(), nullptr),
          "scales: expected room for them, got NULL");
  REFUSED(squeezebert_quantize(&shape, conv.weight.data(), values.data(), conv.weight.data() + 31),
          "scales: expected memory that is not weight's, got rows that overlap");
  auto* const inside = reinterpret_cast<int8_t*>(conv.weight.data());
  REFUSED(squeezebert_quantize(&shape, conv.weight.data(), inside + 127, scales.data()),
          "values: expected memory that is not weight's, got some that overlaps");
  REFUSED(
      squeezebert_quantize(&shape, conv.weight.data(), reinterpret_cast<int8_t*>(scales.data()) - 31, scales.data()),
      "values: expected memory that is not scales's, got some that overlaps");
  std::vector<unsigned char>& packed = conv.packed;
  const std::string room = "packed: expected room for " + std::to_string(packed.size()) + " bytes, got ";
  REFUSED(squeezebert_pack_quantized(&shape, nullptr, scales.data(), packed.data(), packed.size()),
          "values: expected a weight's, got NULL");
  REFUSED(squeezebert_pack_quantized(&shape, values.data(), nullptr, packed.data(), packed.size()),
          "scales: expected a weight's, got NULL");
  REFUSED(squeezebert_pack_quantized(&shape, values.data(), scales.data(), packed.data(), packed.size() - 1),
          room + std::to_string(packed.size() - 1));
  REFUSED(squeezebert_pack_quantized(&shape, values.data(), scales.data(), nullptr, packed.size()), room + "0");
  REFUSED(squeezebert_unpack_quantized(packed.data(), packed.size() - 1, values.data(), scales.data()),
          "packed: expected " + std::to_string(packed.size()) + " bytes of packed weight, got " +
              std::to_string(packed.size() - 1));
  REFUSED(squeezebert_unpack_quantized(packed.data(), packed.size(), nullptr, scales.data()),
          "values: expected room for them, got NULL");
  REFUSED(squeezebert_unpack_quantized(packed.data(), packed.size(), values.data(), nullptr),
          "scales: expected room for them, got NULL");
  g_format = SQUEEZEBERT_FLOAT16;
  conv.pack();
  REFUSED(squeezebert_unpack_quantized(packed.data(), packed.size(), values.data(), scales.data()),
          "packed: expected a weight packed as int8, got float16");
  g_format = SQUEEZEBERT_INT8;

  // The longest sum, and one more.
  size_t bytes = 0;
  squeezebert_conv_shape deep = {2, 2 * 65536, 2, 1};
  OK(squeezebert_packed_size(&deep, SQUEEZEBERT_INT8, &bytes));
  deep.in_channels += 2;
  OK(squeezebert_packed_size(&deep, SQUEEZEBERT_FLOAT32, &bytes));
  const char* const too_deep = "shape: expected sums of at most 65536 products in int8, got 65537";
  REFUSED(squeezebert_packed_size(&deep, SQUEEZEBERT_INT8, &bytes), too_deep);
  REFUSED(squeezebert_quantize(&deep, conv.weight.data(), values.data(), scales.data()), too_deep);
  const int32_t offsets[] = {0, 65537}, one[] = {0, 1};
  squeezebert_attention_shape attention = {sizeof attention, 1, one, offsets, 1, 1, 1.0f, SQUEEZEBERT_INT8,
                                           SQUEEZEBERT_INT8};
  const Floats x(65537);
  float y = 0.0f;
  REFUSED(squeezebert_attention(Context(), &attention, x.data(), 1, x.data(), 1, x.data(), 1, nullptr, &y, 1),
          "value_format: expected sums of at most 65536 products in int8, got 65537");
  attention.value_format = SQUEEZEBERT_FLOAT32;
  OK(squeezebert_attention(Context(), &attention, x.data(), 1, x.data(), 1, x.data(), 1, nullptr, &y, 1));
  attention.key_offsets = one;
  attention.head_size = 65537;
  Floats wide(65537);
  REFUSED(squeezebert_attention(Context(), &attention, x.data(), 65537, x.data(), 65537, x.data(), 65537, nullptr,
                                wide.data(), 65537),
          "key_format: expected sums of at most 65536 products in int8, got 65537");
}

// 65536 products of 127 and 127, and of 255 and 127.
void test_longest_sum() {
  constexpr int64_t kMost = 65536;
  Conv conv(1, kMost, 1, 1);
  std::fill(conv.weight.begin(), conv.weight.end(), 1.0f);
  check_conv(conv, Floats(kMost, -1.0f));
  const int32_t keys[] = {0, kMost}, one[] = {0, 1};
  const Floats query = {1.0f, -1.0f};
  const Floats zeros(2 * kMost), ones(2 * kMost, 3.0f);
  for_each_isa([&] {
    const squeezebert_attention_shape shape = {sizeof shape,    1, one, keys, 1, 2, 1.0f, SQUEEZEBERT_INT8,
                                               SQUEEZEBERT_INT8};
    float y[2];
    OK(squeezebert_attention(Context(), &shape, query.data(), 2, zeros.data(), 2, ones.data(), 2, nullptr, y, 2));
    CHECK_NEAR(y[0], 3.0f, 1e-5);
    CHECK_NEAR(y[1], 3.0f, 1e-5);
  });
}

}  // namespace

int main() {
  g_format = SQUEEZEBERT_INT8;
  test_sizes();
  test_extremes();
  test_special_values();
  test_ties();
  test_attention();
  test_quantized();
  test_errors();
  test_longest_sum();
  return check_result();
}
