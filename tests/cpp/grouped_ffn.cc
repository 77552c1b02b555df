// grouped_ffn against plain loops in float64: blocks that line up (run fused) and blocks that do not, and every number
// of tokens with the bits that its rows have among the most.
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
      for_each_isa([&] {
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
    for_each_isa([&] {
      ffn.pack();
      const Floats all = on_every_host([&](auto* context) { return run(context, ffn, input); });
      check(ffn, input, all);
      for (int64_t tokens = 0; tokens < kMost; tokens += tokens < 34 ? 1 : tokens < 120 ? 15 : 3) {
        const Floats some(input.begin(), input.begin() + tokens * kChannels);
        for (const int32_t workers : {1, 3}) {
          CHECK(same_bits(run(Context(workers), ffn, some), Floats(all.begin(), all.begin() + tokens * kChannels)));
        }
      }
    });
  }
}

}  // namespace

int main() {
  test_groups();
  test_tokens();
  return check_result();
}
