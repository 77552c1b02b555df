// embedding_layer_norm against plain loops in float64, at every kind of row length.
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
    const squeezebert_embeddings embeddings = {words.data(), kVocabulary, places.data(), kPositions,
                                               kinds.data(), kTypes,      channels,      norm.get()};
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

}  // namespace

int main() {
  test_channels();
  return check_result();
}
