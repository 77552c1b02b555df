// grouped_conv1x1, _gelu and _add_layer_norm against plain loops in float64: every edge of a tile in tokens, columns
// and depth, rows far apart, and numbers that are not finite.
#include "exact.h"

namespace {

using namespace tests;

enum Kind { kPlain, kGelu, kAddLayerNorm };
constexpr const char* kNames[] = {"grouped_conv1x1", "grouped_conv1x1_gelu", "grouped_conv1x1_add_layer_norm"};

// The operator on the first `tokens` rows of input; every matrix has gaps between its rows, each its own.
Floats run(squeezebert_context* context, Kind kind, const Conv& conv, const Floats& input, const Floats& residual,
           int64_t tokens) {
  const int64_t in = conv.shape.in_channels, out = conv.shape.out_channels;
  const squeezebert_linear layer = conv.linear();
  const Norm norm(out);
  const squeezebert_layer_norm layer_norm = norm.get();
  const Matrix x(slice(input, 0, tokens * in), in, 3);
  const Matrix r(kind == kAddLayerNorm ? slice(residual, 0, tokens * out) : Floats(), out, 2);
  Matrix y(tokens, out, 5);
  if (kind == kPlain) {
    OK(squeezebert_grouped_conv1x1(context, tokens, x.data(), x.stride(), &layer, y.data(), y.stride()));
  } else if (kind == kGelu) {
    OK(squeezebert_grouped_conv1x1_gelu(context, tokens, x.data(), x.stride(), &layer, y.data(), y.stride()));
  } else {
    OK(squeezebert_grouped_conv1x1_add_layer_norm(context, tokens, x.data(), x.stride(), &layer, r.data(), r.stride(),
                                                  &layer_norm, y.data(), y.stride()));
  }
  CHECK(y.edges_intact());
  return y.values();
}

void check(Kind kind, const Conv& conv, const Floats& got, const Floats& input, const Floats& residual) {
  const Exact product = exact_conv(conv, widen(input));
  if (kind == kPlain) return check_close(kNames[kind], got, product);
  if (kind == kGelu) return check_close(kNames[kind], got, exact_gelu(product));
  double magnifies = 0.0;
  const int64_t out = conv.shape.out_channels;
  const Doubles expected = exact_layer_norm(Norm(out), add(product.values, widen(residual)), &magnifies);
  check_close(kNames[kind], got, expected, conv.shape.in_channels / conv.shape.groups + out, magnifies);
}

// 130 tokens against the loops; then fewer, each row with the bits it had among the 130.
void test_tokens() {
  constexpr int64_t kMost = 130;
  Conv conv(76, 24, 4, 1);
  const Floats input = random(kMost * 24, 3), residual = random(kMost * 76, 4);
  for_each_kernels([&] {
    conv.pack();
    for (const Kind kind : {kPlain, kGelu, kAddLayerNorm}) {
      const Floats all = on_every_host([&](auto* context) { return run(context, kind, conv, input, residual, kMost); });
      check(kind, conv, all, input, residual);
      for (int64_t tokens = 0; tokens < kMost; tokens += tokens < 34 ? 1 : tokens < 120 ? 15 : 3) {
        const Floats some = run(Context(), kind, conv, input, residual, tokens);
        CHECK(same_bits(some, slice(all, 0, tokens * 76)));
      }
    }
  });
}

void test_widths() {
  constexpr int64_t kTokens = 5;
  for (const int64_t depth : {1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 31, 33, 48, 63, 64, 65, 70, 101, 192}) {
    for (const int64_t columns : {1, 3, 8, 15, 16, 17, 20, 31, 32, 33, 48, 192}) {
      for (const int64_t groups : {1, 3}) {
        Conv conv(groups * columns, groups * depth, groups, static_cast<uint32_t>(depth * 1000 + columns));
        if (columns % 2 == 0) conv.bias.clear();
        const Floats input = random(kTokens * groups * depth, 5), residual = random(kTokens * groups * columns, 6);
        for_each_kernels([&] {
          conv.pack();
          for (const Kind kind : {kPlain, kGelu, kAddLayerNorm}) {
            if (kind != kPlain && depth > 5) continue;  // the rest of the work knows nothing of the depth
            check(kind, conv, run(Context(), kind, conv, input, residual, kTokens), input, residual);
          }
        });
      }
    }
  }
}

// Sums are float32 beyond 64 products: float16 would count no further than 2048.
void test_long_sums() {
  constexpr int64_t kIn = 5000, kOut = 3, kTokens = 5;
  Conv conv(kOut, kIn, 1, 11);
  conv.weight.assign(kOut * kIn, 1.0f);
  conv.bias.clear();
  const Floats input(kTokens * kIn, 1.0f);
  for_each_kernels([&] {
    conv.pack();
    CHECK(run(Context(), kPlain, conv, input, {}, kTokens) == Floats(kTokens * kOut, 5000.0f));
  });
}

// A weight that rounds beyond its format's range becomes infinite (65520 in float16), and no smaller one.
void test_overflow() {
  Conv conv(6, 1, 1, 12);
  conv.weight = {65504.0f, 65519.0f, 65520.0f, -1e6f, 0x1.fep127f, -0x1.ffp127f};
  conv.bias.clear();
  const Floats input = {0.5f, -0.25f};
  for_each_kernels([&] {
    conv.pack();
    const Floats got = run(Context(), kPlain, conv, input, {}, 2);
    for (size_t i = 0; i < got.size(); ++i) {
      CHECK(got[i] == static_cast<float>(input[i / 6] * stored(conv.weight[i % 6])));
      CHECK(!std::isinf(got[i]) || g_format != SQUEEZEBERT_FLOAT32);
    }
  });
}

// One number that is not finite reaches its own row and group, and leaves the bits of all others.
void test_not_finite() {
  constexpr int64_t kTokens = 30, kIn = 24, kOut = 40, kGroups = 4;
  Conv conv(kOut, kIn, kGroups, 7);
  const Floats clean = random(kTokens * kIn, 8), residual(kTokens * kOut, 0.5f);
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    Floats input = clean;
    input[17 * kIn + 2 * (kIn / kGroups) + 1] = bad;
    for_each_kernels([&] {
      conv.pack();
      const bool int8 = g_format == SQUEEZEBERT_INT8;  // which makes NaN of an infinity
      if (!int8) check(kPlain, conv, run(Context(), kPlain, conv, input, residual, kTokens), input, residual);
      for (const Kind kind : {kPlain, kGelu, kAddLayerNorm}) {
        const Floats expected = run(Context(), kind, conv, clean, residual, kTokens);
        const Floats got = run(Context(), kind, conv, input, residual, kTokens);
        for (size_t i = 0; i < got.size(); ++i) {
          const bool hit = i / kOut == 17 && (kind == kAddLayerNorm || i % kOut / (kOut / kGroups) == 2);
          if (!hit) CHECK(memcmp(&got[i], &expected[i], sizeof(float)) == 0);
          // LayerNorm of an infinite row has no finite mean; GELU of -infinity is its limit, 0.
          if (hit && (std::isnan(bad) || int8 || kind == kAddLayerNorm)) CHECK(std::isnan(got[i]));
        }
      }
    });
  }
}

// No ISA flushes denormals to zero; int8 is defined to.
void test_denormals() {
  constexpr int64_t kChannels = 37;
  Conv identity(kChannels, kChannels, 1, 9);
  identity.bias.clear();
  for (int64_t i = 0; i < kChannels * kChannels; ++i) {
    identity.weight[static_cast<size_t>(i)] = i % (kChannels + 1) == 0 ? 1.0f : 0.0f;
  }
  for_each_kernels([&] {
    if (g_format == SQUEEZEBERT_INT8 || multiplies_bfloat()) return;  // both take them for zeros
    identity.pack();
    Floats input = denormals(20 * kChannels, 10);
    // Those of float16, below 2^-14, are multiples of 2^-24.
    for (float& value : input) value = multiplies_half() ? truncf(value * 0x1p127f * 1000.0f) * 0x1p-24f : value;
    CHECK(same_bits(run(Context(), kPlain, identity, input, {}, 20), input));
    if (multiplies_half()) return;  // its denormals are too far from zero for what follows
    const Floats halves = run(Context(), kGelu, identity, input, {}, 20);  // so near to zero, gelu(x) is x / 2
    for (size_t i = 0; i < input.size(); ++i) {
      CHECK_NEAR(halves[i], 0.5 * input[i], 0x1p-149 + 3e-7 * fabs(input[i]));
    }
  });
}

}  // namespace

int main() {
  test_tokens();
  test_widths();
  test_long_sums();
  test_overflow();
  test_not_finite();
  test_denormals();
  return check_result();
}
