// embedding_layer_norm against plain loops in float64, at every kind of row length; a token's bits whatever is around
// it; denormals and NaN.
#include "exact.h"

namespace {

using namespace tests;

using Ids = std::vector<int64_t>;

void test_channels() {
  constexpr int64_t kVocabulary = 11, kPositions = 7, kTypes = 3;
  const Ids ids = {3, 0, 10, 10, 7, 5, 5, 1, 9}, positions = {0, 1, 2, 3, 6, 0, 0, 5, 4},
            types = {2, 0, 1, 1, 0, 2, 2, 1, 0};
  const auto tokens = static_cast<int64_t>(ids.size());
  for (const int64_t channels : {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 192, 768}) {
    const Floats words = random(kVocabulary * channels, 1), places = random(kPositions * channels, 2),
                 kinds = random(kTypes * channels, 3);
    Norm norm(channels);
    norm.epsilon = 1e-5f;
    const squeezebert_embeddings embeddings = {sizeof(squeezebert_embeddings),
                                               words.data(),
                                               kVocabulary,
                                               places.data(),
                                               kPositions,
                                               kinds.data(),
                                               kTypes,
                                               channels,
                                               norm.get()};
    for (const bool typed : {true, false}) {
      Doubles sums;
      for (size_t t = 0; t < ids.size(); ++t) {
        for (int64_t c = 0; c < channels; ++c) {
          const auto at = [&](const Floats& table, int64_t row) {
            return static_cast<double>(table[static_cast<size_t>(row * channels + c)]);
          };
          sums.push_back(at(words, ids[t]) + at(places, positions[t]) + at(kinds, typed ? types[t] : 0));
        }
      }
      double magnifies = 0.0;
      const Doubles expected = exact_layer_norm(norm, sums, &magnifies);
      for_each_isa([&] {
        const Floats got = on_every_host([&](auto* context) {
          Matrix output(tokens, channels, 3);
          OK(squeezebert_embedding_layer_norm(context, tokens, ids.data(), typed ? types.data() : nullptr,
                                              positions.data(), &embeddings, output.data(), output.stride()));
          CHECK(output.edges_intact());
          return output.values();
        });
        check_close("embedding_layer_norm", got, expected, 2 * channels, magnifies);
        OK(squeezebert_embedding_layer_norm(Context(), 0, nullptr, nullptr, nullptr, &embeddings, nullptr, channels));
      });
    }
  }
}

struct Tables {
  static constexpr int64_t kRows = 40, kChannels = 37;
  Floats words, places = random(kRows * kChannels, 5), kinds = random(2 * kChannels, 6);
  Norm norm{kChannels};
  explicit Tables(Floats words) : words(std::move(words)) {}

  // Token t is word t, at position t.
  Floats run(squeezebert_context* context, int64_t first, int64_t tokens) const {
    const squeezebert_embeddings embeddings = {sizeof(squeezebert_embeddings),
                                               words.data(),
                                               kRows,
                                               places.data(),
                                               kRows,
                                               kinds.data(),
                                               2,
                                               kChannels,
                                               norm.get()};
    Ids ids;
    for (int64_t t = first; t < first + tokens; ++t) ids.push_back(t);
    Matrix output(tokens, kChannels, 1);
    OK(squeezebert_embedding_layer_norm(context, tokens, ids.data(), nullptr, ids.data(), &embeddings, output.data(),
                                        output.stride()));
    CHECK(output.edges_intact());
    return output.values();
  }
};

void test_tokens() {
  const Tables tables(random(Tables::kRows * Tables::kChannels, 4));
  for_each_isa([&] {
    const Floats all = on_every_host([&](auto* context) { return tables.run(context, 0, Tables::kRows); });
    for (int64_t tokens = 1; tokens < 34; ++tokens) {
      const int64_t first = Tables::kRows - tokens;
      CHECK(same_bits(tables.run(Context(2), first, tokens),
                      slice(all, first * Tables::kChannels, Tables::kRows * Tables::kChannels)));
    }
  });
}

void test_not_finite() {
  constexpr int64_t kChannels = Tables::kChannels;
  const Floats words = random(Tables::kRows * kChannels, 4);
  const Tables clean(words);
  Tables spoilt(words);
  spoilt.words[11 * kChannels + 36] = NAN;
  for_each_isa([&] {
    const Floats expected = clean.run(Context(), 0, 33), got = spoilt.run(Context(), 0, 33);
    CHECK(same_bits(slice(got, 0, 11 * kChannels), slice(expected, 0, 11 * kChannels)));
    for (const float value : slice(got, 11 * kChannels, 12 * kChannels)) CHECK(std::isnan(value));
    CHECK(same_bits(slice(got, 12 * kChannels, 33 * kChannels), slice(expected, 12 * kChannels, 33 * kChannels)));
  });
}

// No ISA flushes denormals to zero: epsilon's root, 1e-6, is all that a row of them is divided by.
void test_denormals() {
  constexpr int64_t kChannels = Tables::kChannels;
  Tables tables(denormals(Tables::kRows * kChannels, 4));
  std::fill(tables.places.begin(), tables.places.end(), 0.0f);
  std::fill(tables.kinds.begin(), tables.kinds.end(), 0.0f);
  tables.norm.bias.assign(kChannels, 0.0f);
  double magnifies = 0.0;
  const Doubles expected = exact_layer_norm(tables.norm, widen(slice(tables.words, 0, 33 * kChannels)), &magnifies);
  const Doubles bounds(expected.size(), 4 * 0x1p-149 * magnifies);  // the mean's roundings, and the distance's
  for_each_isa([&] { check_close("denormals", tables.run(Context(), 0, 33), expected, bounds); });
}

}  // namespace

int main() {
  test_channels();
  test_tokens();
  test_not_finite();
  test_denormals();
  return check_result();
}
