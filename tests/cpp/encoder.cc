// The encoder against plain loops in float64, and what it promises about bits: those of a sequence do not depend on the
// batch, the workers, the output's place, or whether only first tokens were asked for.
#include "exact.h"

namespace {

using namespace tests;

constexpr int64_t kChannels = 24, kWide = 60, kHeads = 4;  // of every encoder but that of test_odd_widths
constexpr int64_t kGroups[][6] = {{4, 4, 4, 1, 4, 4}, {1, 1, 1, 1, 1, 1}, {2, 4, 3, 1, 6, 2}, {12, 1, 2, 4, 3, 12}};

struct Encoder {
  std::vector<EncoderLayer> layers;
  int64_t channels, heads;

  Encoder(const int64_t (&groups)[6], int count, int64_t channels = kChannels, int64_t wide = kWide,
          int64_t heads = kHeads)
      : channels(channels), heads(heads) {
    for (int l = 0; l < count; ++l) layers.emplace_back(channels, wide, groups, 100u * static_cast<uint32_t>(l));
  }
  void pack() {
    for (EncoderLayer& layer : layers) layer.pack();
  }
  std::vector<squeezebert_layer> get() const {
    std::vector<squeezebert_layer> all;
    for (const EncoderLayer& layer : layers) all.push_back(layer.get());
    return all;
  }
};

Floats run(squeezebert_context* context, const Encoder& encoder, const Offsets& offsets, const Floats& input,
           bool first_token_only = false, const squeezebert_mask* mask = nullptr) {
  const std::vector<squeezebert_layer> layers = encoder.get();
  const auto sequences = static_cast<int64_t>(offsets.size()) - 1;
  const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), sequences, offsets.data(), encoder.heads,
                                           first_token_only};
  const Matrix x(input, encoder.channels, 3);
  Matrix y(first_token_only ? sequences : x.rows(), encoder.channels, 1);
  OK(squeezebert_encoder(context, &shape, layers.data(), static_cast<int64_t>(layers.size()), x.data(), x.stride(),
                         mask, y.data(), y.stride()));
  CHECK(y.edges_intact());
  return y.values();
}

Floats rows(const Floats& x, int64_t begin, int64_t end) { return slice(x, begin * kChannels, end * kChannels); }

void test_exact() {
  const Offsets offsets = {0, 17, 17, 18, 53};
  const Floats input = random(53 * kChannels, 1), data = random(35 * 35, 2);
  const squeezebert_mask mask = {sizeof(squeezebert_mask), data.data(), 0, 0, 35};
  for (const auto& groups : kGroups) {
    Encoder encoder(groups, 2);
    for (const squeezebert_mask* given : {static_cast<const squeezebert_mask*>(nullptr), &mask}) {
      double magnifies = 0.0;
      Doubles expected = widen(input);
      for (const EncoderLayer& layer : encoder.layers) {
        expected = exact_layer(layer, offsets, kHeads, expected, given, &magnifies);
      }
      for_each_kernels([&] {
        encoder.pack();
        const Floats got = on_every_host([&](auto* c) { return run(c, encoder, offsets, input, false, given); });
        // Two layers, each four convolutions, two LayerNorms and the attention of at most 35 keys.
        check_close("encoder", got, expected, 2 * (5 * kChannels + kWide + 35), magnifies);
      });
    }
  }
}

// Groups of 7 and 13 channels, heads of 7, and sequences of 0 to 33 tokens: no width, depth or number of rows fits a
// tile. Right, and each sequence with the bits that it has alone.
void test_odd_widths() {
  constexpr int64_t kOdd = 35, kOddWide = 65, kOddHeads = 5, kOddGroups[6] = {5, 5, 5, 1, 5, 5};
  const Offsets offsets = every_length(33);
  const Floats input = random(offsets.back() * kOdd, 6);
  Encoder encoder(kOddGroups, 2, kOdd, kOddWide, kOddHeads);
  for_each_kernels([&] {
    double magnifies = 0.0;
    Doubles expected = widen(input);
    for (const EncoderLayer& layer : encoder.layers) {
      expected = exact_layer(layer, offsets, kOddHeads, expected, nullptr, &magnifies);
    }
    encoder.pack();
    const Floats batch = on_every_host([&](auto* context) { return run(context, encoder, offsets, input); });
    check_close("encoder of odd widths", batch, expected, 2 * (5 * kOdd + kOddWide + 33), magnifies);
    for (size_t s = 0; s + 1 < offsets.size(); ++s) {
      const int32_t begin = offsets[s], end = offsets[s + 1];
      const Floats alone = run(Context(), encoder, {0, end - begin}, slice(input, begin * kOdd, end * kOdd));
      CHECK(same_bits(alone, slice(batch, begin * kOdd, end * kOdd)));
    }
  });
}

void test_same_bits() {
  const Offsets offsets = {0, 1, 30, 44, 46, 140};
  const Floats input = random(140 * kChannels, 3);
  const Floats data = random(5 * kHeads * 94 * 94, 4);
  const squeezebert_mask masks[] = {{sizeof(squeezebert_mask), data.data(), kHeads * 94 * 94, 94 * 94, 94},
                                    {sizeof(squeezebert_mask), data.data(), kHeads * 94, 94, 0}};
  for (const int which : {0, 2}) {
    Encoder encoder(kGroups[which], 2);
    for_each_kernels([&] {
      encoder.pack();
      const std::vector<squeezebert_layer> layers = encoder.get();
      const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), 5, offsets.data(), kHeads, 0};
      for (const squeezebert_mask* mask : {static_cast<const squeezebert_mask*>(nullptr), &masks[0], &masks[1]}) {
        const Floats batch = run(Context(), encoder, offsets, input, false, mask);
        const Floats first = on_every_host([&](auto* c) { return run(c, encoder, offsets, input, true, mask); });
        for (int64_t s = 0; s < 5; ++s) {
          const int32_t begin = offsets[static_cast<size_t>(s)], end = offsets[static_cast<size_t>(s) + 1];
          CHECK(same_bits(rows(first, s, s + 1), rows(batch, begin, begin + 1)));
          squeezebert_mask own = mask ? *mask : squeezebert_mask{};
          own.data += s * own.sequence_stride;
          const Floats alone =
              run(Context(), encoder, {0, end - begin}, rows(input, begin, end), false, mask ? &own : nullptr);
          CHECK(same_bits(alone, rows(batch, begin, end)));
        }
        Matrix in_place(input, kChannels, 2);
        OK(squeezebert_encoder(Context(2), &shape, layers.data(), 2, in_place.data(), in_place.stride(), mask,
                               in_place.data(), in_place.stride()));
        CHECK(same_bits(in_place.values(), batch) && in_place.edges_intact());
      }
      // Sequences of one token: as many queries as keys although only first tokens are asked for.
      CHECK(same_bits(run(Context(), encoder, {0, 1, 2}, rows(input, 0, 2), true),
                      run(Context(), encoder, {0, 1, 2}, rows(input, 0, 2))));
      // One context for calls of any size, the larger first.
      Context context(2);
      const Floats longest = run(context, encoder, offsets, input);
      const Floats shorter = run(context, encoder, {0, 29}, rows(input, 1, 30));
      CHECK(same_bits(shorter, rows(longest, 1, 30)));
    });
  }
}

void test_nothing() {
  Encoder encoder(kGroups[0], 1);
  for_each_kernels([&] {
    encoder.pack();
    for (const Offsets& offsets : {Offsets{0}, Offsets{0, 0}, Offsets{0, 0, 0}}) {
      CHECK(run(Context(2), encoder, offsets, {}).empty());
    }
    CHECK(run(Context(2), encoder, {0}, {}, true).empty());
  });
}

// NaN in one sequence spoils that sequence, throughout, and no other.
void test_not_finite() {
  const Offsets offsets = {0, 9, 20, 31};
  const Floats clean = random(31 * kChannels, 5);
  for (const auto& groups : kGroups) {
    Encoder encoder(groups, 2);
    for (const float bad : {NAN, INFINITY}) {
      Floats input = clean;
      input[12 * kChannels + 3] = bad;
      for_each_kernels([&] {
        encoder.pack();
        const Floats expected = run(Context(), encoder, offsets, clean), got = run(Context(), encoder, offsets, input);
        CHECK(same_bits(rows(got, 0, 9), rows(expected, 0, 9)) && same_bits(rows(got, 20, 31), rows(expected, 20, 31)));
        for (const float value : rows(got, 9, 20)) CHECK(std::isnan(value));
      });
    }
  }
}

}  // namespace

int main() {
  test_exact();
  test_odd_widths();
  test_same_bits();
  test_nothing();
  test_not_finite();
  return check_result();
}
