// grouped_ffn against plain loops in float64: blocks that line up (run fused) and blocks that do not, and every number
// of tokens with the bits that its rows have among the most; denormals and NaN.
#include "exact.h"

namespace {

using namespace tests;

struct Ffn {
  Conv intermediate, output;
  Norm norm;
  Ffn(int64_t channels, int64_t wide, int64_t first_groups, int64_t second_groups)
      : intermediate(wide, channels, first_groups, 1), output(channels, wide, second_groups, 3), norm(channels) {}
  void pack() {
    intermediate.pack();
    output.pack();
  }
};

Floats run(squeezebert_context* context, const Ffn& ffn, const Floats& input) {
  const int64_t channels = ffn.output.shape.out_channels;
  const squeezebert_linear intermediate = ffn.intermediate.linear(), output = ffn.output.linear();
  const squeezebert_layer_norm norm = ffn.norm.get();
  const Matrix x(input, channels, 3);
  Matrix y(x.rows(), channels, 1);
  OK(squeezebert_grouped_ffn(context, x.rows(), x.data(), x.stride(), &intermediate, &output, &norm, y.data(),
                             y.stride()));
  CHECK(y.edges_intact());
  return y.values();
}

void check(const Ffn& ffn, const Floats& input, const Floats& got) {
  double magnifies = 0.0;
  const Doubles expected = exact_ffn(ffn.intermediate, ffn.output, ffn.norm, widen(input), &magnifies);
  const squeezebert_conv_shape &first = ffn.intermediate.shape, &second = ffn.output.shape;
  check_close("grouped_ffn", got, expected,
              first.in_channels / first.groups + second.in_channels / second.groups + second.out_channels, magnifies);
}

void test_groups() {
  const int64_t groups[][2] = {{1, 1}, {2, 2}, {6, 6}, {12, 12}, {2, 4}, {4, 1}, {1, 3}};
  for (const auto& [first, second] : groups) {
    for (const int64_t wide : {12, 60, 156}) {
      Ffn ffn(36, wide, first, second);
      if (wide == 60) ffn.intermediate.bias.clear();
      const Floats input = random(41 * 36, 5);
      for_each_kernels([&] {
        ffn.pack();
        check(ffn, input, on_every_host([&](auto* context) { return run(context, ffn, input); }));
      });
    }
  }
}

void test_tokens() {
  constexpr int64_t kMost = 260, kChannels = 20;
  const Floats input = random(kMost * kChannels, 6);
  for (const int64_t second_groups : {4, 2}) {
    Ffn ffn(kChannels, 52, 4, second_groups);
    for_each_kernels([&] {
      ffn.pack();
      const Floats all = on_every_host([&](auto* context) { return run(context, ffn, input); });
      check(ffn, input, all);
      for (int64_t tokens = 0; tokens < kMost; tokens += tokens < 34 ? 1 : tokens < 120 ? 15 : 3) {
        const Floats some = slice(input, 0, tokens * kChannels);
        for (const int32_t workers : {1, 3}) {
          CHECK(same_bits(run(Context(workers), ffn, some), slice(all, 0, tokens * kChannels)));
        }
      }
    });
  }
}

// A row that is not finite anywhere is NaN throughout, for LayerNorm takes all of it; all others keep their bits.
void test_not_finite() {
  constexpr int64_t kTokens = 31, kChannels = 20;
  const Floats clean = random(kTokens * kChannels, 7);
  for (const int64_t second_groups : {4, 2}) {
    Ffn ffn(kChannels, 52, 4, second_groups);
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      Floats input = clean;
      input[13 * kChannels + 6] = bad;
      for_each_kernels([&] {
        ffn.pack();
        const Floats expected = run(Context(), ffn, clean), got = run(Context(), ffn, input);
        CHECK(same_bits(slice(got, 0, 13 * kChannels), slice(expected, 0, 13 * kChannels)));
        for (const float value : slice(got, 13 * kChannels, 14 * kChannels)) CHECK(std::isnan(value));
        CHECK(same_bits(slice(got, 14 * kChannels, kTokens * kChannels),
                        slice(expected, 14 * kChannels, kTokens * kChannels)));
      });
    }
  }
}

// No ISA flushes denormals to zero: epsilon's root, 1e-6, is all that the rows are divided by.
void test_denormals() {
  constexpr int64_t kTokens = 19, kChannels = 20;
  const Floats input = denormals(kTokens * kChannels, 8);
  for (const int64_t second_groups : {4, 2}) {
    Ffn ffn(kChannels, 52, 4, second_groups);
    ffn.intermediate.bias.clear();
    ffn.output.bias.clear();
    ffn.norm.bias.assign(kChannels, 0.0f);
    double magnifies = 0.0;
    const Doubles expected = exact_ffn(ffn.intermediate, ffn.output, ffn.norm, widen(input), &magnifies);
    const Doubles bounds(expected.size(), 32 * 0x1p-149 * magnifies);  // roundings of denormals, and some
    for_each_isa([&] {
      ffn.pack();
      check_close("grouped_ffn of denormals", run(Context(), ffn, input), expected, bounds);
    });
  }
}

}  // namespace

int main() {
  test_groups();
  test_tokens();
  test_not_finite();
  test_denormals();
  return check_result();
}
