// grouped_qkv_attention against plain loops in float64: groups that line up with the heads and groups that do not,
// other channels out than in, every length, NaN, and the same bits in any batch.
#include "exact.h"

namespace {

using namespace tests;

constexpr int64_t kIn = 24, kHeads = 3;

struct Projections {
  Conv query, key, value;
  Projections(int64_t out, const int64_t (&groups)[3])
      : query(out, kIn, groups[0], 1), key(out, kIn, groups[1], 3), value(out, kIn, groups[2], 5) {}
};

Floats run(squeezebert_context* context, const Projections& p, const Offsets& offsets, const Floats& input,
           const squeezebert_mask* mask = nullptr) {
  const int64_t out = p.query.shape.out_channels;
  const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                             static_cast<int64_t>(offsets.size()) - 1,
                                             offsets.data(),
                                             offsets.data(),
                                             kHeads,
                                             out / kHeads,
                                             0.4f,
                                             g_format,
                                             g_format};
  const squeezebert_linear query = p.query.linear(), key = p.key.linear(), value = p.value.linear();
  const Matrix x(input, kIn, 1);
  Matrix y(x.rows(), out, 2);
  OK(squeezebert_grouped_qkv_attention(context, &shape, x.data(), x.stride(), &query, &key, &value, mask, y.data(),
                                       y.stride()));
  CHECK(y.edges_intact());
  return y.values();
}

void test_groups() {
  const Offsets offsets = {0, 9, 9, 10, 44};
  const Floats input = random(44 * kIn, 7), data = random(34 * 34, 8);
  const squeezebert_mask mask = {sizeof(squeezebert_mask), data.data(), 0, 0, 34};
  const int64_t all_groups[][3] = {{1, 1, 1}, {3, 3, 3}, {12, 12, 12}, {1, 3, 4}, {6, 2, 12}};
  for (const int64_t out : {12, 60}) {
    for (const auto& groups : all_groups) {
      Projections p(out, groups);
      if (groups[0] == 3) p.key.bias.clear();
      const Doubles x = widen(input);
      const Doubles query = exact_conv(p.query, x).values, key = exact_conv(p.key, x).values,
                    value = exact_conv(p.value, x).values;
      const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                                 4,
                                                 offsets.data(),
                                                 offsets.data(),
                                                 kHeads,
                                                 out / kHeads,
                                                 0.4f,
                                                 g_format,
                                                 g_format};
      for_each_kernels([&] {
        for (Conv* conv : {&p.query, &p.key, &p.value}) conv->pack();
        for (const squeezebert_mask* given : {static_cast<const squeezebert_mask*>(nullptr), &mask}) {
          const Floats batch = on_every_host([&](auto* context) { return run(context, p, offsets, input, given); });
          check_close("grouped_qkv_attention", batch, exact_attention(shape, query, key, value, given),
                      kIn + out / kHeads + 34);
          for (size_t s = 0; s + 1 < offsets.size(); ++s) {
            const int32_t begin = offsets[s], end = offsets[s + 1];
            const Floats alone = run(Context(), p, {0, end - begin}, slice(input, begin * kIn, end * kIn), given);
            CHECK(same_bits(alone, slice(batch, begin * out, end * out)));
          }
        }
        CHECK(run(Context(3), p, {0}, {}).empty());
        CHECK(run(Context(3), p, {0, 0}, {}).empty());
      });
    }
  }
}

// Sequences of 0 to 33 tokens and heads of 7 channels: right, and each with the bits that it has alone.
void test_lengths() {
  constexpr int64_t kOut = 21;
  const Offsets offsets = every_length(33);
  const Floats input = random(offsets.back() * kIn, 10);
  const int64_t all_groups[][3] = {{3, 3, 3}, {1, 3, 3}};
  for (const auto& groups : all_groups) {
    Projections p(kOut, groups);
    const Doubles x = widen(input);
    for_each_kernels([&] {
      const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                                 34,
                                                 offsets.data(),
                                                 offsets.data(),
                                                 kHeads,
                                                 kOut / kHeads,
                                                 0.4f,
                                                 g_format,
                                                 g_format};
      const Doubles expected = exact_attention(shape, exact_conv(p.query, x).values, exact_conv(p.key, x).values,
                                               exact_conv(p.value, x).values, nullptr);
      for (Conv* conv : {&p.query, &p.key, &p.value}) conv->pack();
      const Floats batch = on_every_host([&](auto* context) { return run(context, p, offsets, input); });
      check_close("grouped_qkv_attention", batch, expected, kIn + kOut / kHeads + 33);
      for (size_t s = 0; s + 1 < offsets.size(); ++s) {
        const int32_t begin = offsets[s], end = offsets[s + 1];
        const Floats alone = run(Context(), p, {0, end - begin}, slice(input, begin * kIn, end * kIn));
        CHECK(same_bits(alone, slice(batch, begin * kOut, end * kOut)));
      }
    });
  }
}

// NaN reaches its own sequence, through the keys, and there the heads of its group.
void test_not_finite() {
  constexpr int64_t kOut = 21;
  const Offsets offsets = {0, 9, 20, 31};
  const Floats clean = random(31 * kIn, 11);
  Floats input = clean;
  input[12 * kIn + kIn / kHeads + 1] = NAN;  // of the second sequence and the second head
  const int64_t all_groups[][3] = {{3, 3, 3}, {1, 1, 1}};
  for (const auto& groups : all_groups) {
    Projections p(kOut, groups);
    for_each_kernels([&] {
      for (Conv* conv : {&p.query, &p.key, &p.value}) conv->pack();
      const Floats expected = run(Context(), p, offsets, clean), got = run(Context(), p, offsets, input);
      for (int64_t i = 0; i < 31 * kOut; ++i) {
        const int64_t row = i / kOut, head = i % kOut / (kOut / kHeads);
        const auto at = static_cast<size_t>(i);
        if (row >= 9 && row < 20 && (groups[0] == 1 || head == 1)) {
          CHECK(std::isnan(got[at]));
        } else {
          CHECK(memcmp(&got[at], &expected[at], sizeof(float)) == 0);
        }
      }
    });
  }
}

// One call has the bits of its four steps.
void check_steps(const Offsets& offsets) {
  constexpr int64_t kOut = 12;
  const int64_t tokens = offsets.back(), groups[] = {3, 3, 3};
  Projections p(kOut, groups);
  const Floats input = random(tokens * kIn, 9);
  const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                             static_cast<int64_t>(offsets.size()) - 1,
                                             offsets.data(),
                                             offsets.data(),
                                             kHeads,
                                             kOut / kHeads,
                                             0.4f,
                                             g_format,
                                             g_format};
  const Context context;
  Floats projected[3], expected(static_cast<size_t>(tokens * kOut));
  Conv* const convs[] = {&p.query, &p.key, &p.value};
  for (int i = 0; i < 3; ++i) {
    convs[i]->pack();
    projected[i].resize(expected.size());
    const squeezebert_linear layer = convs[i]->linear();
    OK(squeezebert_grouped_conv1x1(context, tokens, input.data(), kIn, &layer, projected[i].data(), kOut));
  }
  OK(squeezebert_attention(context, &shape, projected[0].data(), kOut, projected[1].data(), kOut, projected[2].data(),
                           kOut, nullptr, expected.data(), kOut));
  CHECK(same_bits(run(context, p, offsets, input), expected));
}

}  // namespace

int main() {
  test_groups();
  test_lengths();
  test_not_finite();
  for_each_kernels([] { check_steps({0, 9, 9, 10, 44}); });
  check_steps({0, 4, 1034});  // longer than projections and attention run as one
  return check_result();
}
