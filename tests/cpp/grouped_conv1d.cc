// grouped_conv1d against plain loops in float64: kernel sizes shorter and longer than the sequences, empty sequences,
// and the same bits for a sequence alone as in a batch; every length; denormals and NaN.
#include <numeric>

#include "exact.h"
namespace {

using namespace tests;

Floats run(squeezebert_context* context, const Conv& conv, const Offsets& offsets, const Floats& input) {
  const squeezebert_linear layer = conv.linear();
  const Matrix x(input, conv.shape.in_channels, 3);
  Matrix y(x.rows(), conv.shape.out_channels, 5);
  OK(squeezebert_grouped_conv1d(context, static_cast<int64_t>(offsets.size()) - 1, offsets.data(), x.data(), x.stride(),
                                &layer, y.data(), y.stride()));
  CHECK(y.edges_intact());
  return y.values();
}

void test_kernel_sizes() {
  const Offsets offsets = {0, 1, 1, 3, 8, 8, 37};
  for (const int64_t taps : {1, 3, 5, 9, 31}) {
    for (const int64_t groups : {1, 2, 4}) {
      Conv conv(28, 20, groups, static_cast<uint32_t>(taps), taps);
      if (groups == 2) conv.bias.clear();
      const Floats input = random(37 * 20, 3);
      for_each_kernels([&] {
        const Exact expected = exact_conv(conv, offsets, widen(input));
        conv.pack();
        const Floats batch = on_every_host([&](auto* context) { return run(context, conv, offsets, input); });
        check_close("grouped_conv1d", batch, expected);
        for (size_t s = 0; s + 1 < offsets.size(); ++s) {
          const int32_t begin = offsets[s], end = offsets[s + 1];
          const Floats alone = run(Context(), conv, {0, end - begin}, slice(input, begin * 20, end * 20));
          CHECK(same_bits(alone, slice(batch, begin * 28, end * 28)));
        }
      });
    }
  }
}

// Sequences of 0 to 33 tokens: right, and each with the bits that it has alone.
void test_lengths() {
  constexpr int64_t kIn = 21, kOut = 33;
  const Offsets offsets = every_length(33);
  Conv conv(kOut, kIn, 3, 8, 5);
  const Floats input = random(offsets.back() * kIn, 9);
  for_each_kernels([&] {
    const Exact expected = exact_conv(conv, offsets, widen(input));
    conv.pack();
    const Floats batch = on_every_host([&](auto* context) { return run(context, conv, offsets, input); });
    check_close("grouped_conv1d", batch, expected);
    for (size_t s = 0; s + 1 < offsets.size(); ++s) {
      const int32_t begin = offsets[s], end = offsets[s + 1];
      const Floats alone = run(Context(), conv, {0, end - begin}, slice(input, begin * kIn, end * kIn));
      CHECK(same_bits(alone, slice(batch, begin * kOut, end * kOut)));
    }
  });
}

// No ISA flushes denormals to zero.
void test_denormals() {
  constexpr int64_t kChannels = 13;
  Conv identity(kChannels, kChannels, 1, 10, 3);
  identity.bias.clear();
  for (int64_t i = 0; i < kChannels * kChannels * 3; ++i) {
    const int64_t out = i / (kChannels * 3), in = i / 3 % kChannels;
    identity.weight[static_cast<size_t>(i)] = out == in && i % 3 == 1 ? 1.0f : 0.0f;
  }
  const Floats input = denormals(20 * kChannels, 11);
  for_each_isa([&] {
    identity.pack();
    CHECK(same_bits(run(Context(), identity, {0, 7, 20}, input), input));
  });
}

// What is not finite reaches the rows within half a kernel of its own, in its sequence and group, and no other.
void test_not_finite() {
  const Offsets offsets = {0, 12, 24};
  Conv conv(8, 8, 2, 4, 3);
  const Floats clean = random(24 * 8, 5);
  Floats input = clean;
  input[11 * 8 + 5] = NAN;
  for_each_kernels([&] {
    conv.pack();
    const Floats expected = run(Context(), conv, offsets, clean), got = run(Context(), conv, offsets, input);
    for (size_t i = 0; i < got.size(); ++i) {
      const size_t row = i / 8, group = i % 8 / 4;
      if (group == 1 && (row == 10 || row == 11)) {
        CHECK(std::isnan(got[i]));
      } else {
        CHECK(memcmp(&got[i], &expected[i], sizeof(float)) == 0);
      }
    }
  });
}

// A kernel of one is grouped_conv1x1, to the bit; nothing to compute is fine.
void test_edges() {
  Conv conv(33, 21, 3, 6);
  const Floats input = random(19 * 21, 7);
  for_each_kernels([&] {
    conv.pack();
    const squeezebert_linear layer = conv.linear();
    Floats output(19 * 33);
    OK(squeezebert_grouped_conv1x1(Context(), 19, input.data(), 21, &layer, output.data(), 33));
    CHECK(same_bits(output, run(Context(), conv, {0, 19}, input)));
    CHECK(run(Context(4), conv, {0}, {}).empty());
    CHECK(run(Context(4), conv, {0, 0, 0}, {}).empty());
  });
}

// Taps that reach no row of a sequence cost nothing: for each of these sequences even passing them over, one by one,
// would take hours.
void test_kernel_wider_than_every_sequence() {
  constexpr int32_t kSequences = 1 << 19;
  Conv conv(1, 1, 1, 8, (1 << 19) + 1);
  conv.pack();
  conv.bias[0] = 0.0f;
  Offsets offsets(kSequences + 1);
  std::iota(offsets.begin(), offsets.end(), 0);
  Floats expected = random(kSequences, 9);
  const Floats output = run(Context(), conv, offsets, expected);
  for (float& x : expected) x *= conv.weight[1 << 18];
  CHECK(same_bits(output, expected));
}

}  // namespace

int main() {
  test_kernel_sizes();
  test_lengths();
  test_denormals();
  test_not_finite();
  test_edges();
  test_kernel_wider_than_every_sequence();
  return check_result();
}
