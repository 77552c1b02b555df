// attention against plain loops in float64: head sizes, tile edges in queries and keys, masks of every stride, rows
// that are masked throughout, denormals, and numbers that are not finite.
#include "exact.h"

namespace {

using namespace tests;

struct Problem {
  Offsets query_offsets, key_offsets;
  int64_t heads, head_size;
  Floats query, key, value;
  float scale = 0.3f;

  Problem(Offsets queries, Offsets keys, int64_t heads, int64_t head_size)
      : query_offsets(std::move(queries)),
        key_offsets(std::move(keys)),
        heads(heads),
        head_size(head_size),
        query(random(query_offsets.back() * channels(), 1)),
        key(random(key_offsets.back() * channels(), 2)),
        value(random(key_offsets.back() * channels(), 3)) {}

  int64_t channels() const { return heads * head_size; }
  squeezebert_attention_shape shape() const {
    return {sizeof(squeezebert_attention_shape),
            static_cast<int64_t>(query_offsets.size()) - 1,
            query_offsets.data(),
            key_offsets.data(),
            heads,
            head_size,
            scale,
            g_format,
            g_format};
  }
};

Floats run(squeezebert_context* context, const Problem& p, const squeezebert_mask* mask = nullptr) {
  const squeezebert_attention_shape shape = p.shape();
  const Matrix query(p.query, p.channels(), 1), key(p.key, p.channels(), 2), value(p.value, p.channels(), 3);
  Matrix output(query.rows(), p.channels(), 4);
  OK(squeezebert_attention(context, &shape, query.data(), query.stride(), key.data(), key.stride(), value.data(),
                           value.stride(), mask, output.data(), output.stride()));
  CHECK(output.edges_intact());
  return output.values();
}

void check(const Problem& p, const Floats& got, const squeezebert_mask* mask = nullptr) {
  int64_t keys = 0;
  for (size_t s = 1; s < p.key_offsets.size(); ++s)
    keys = std::max<int64_t>(keys, p.key_offsets[s] - p.key_offsets[s - 1]);
  check_close("attention", got, exact_attention(p.shape(), widen(p.query), widen(p.key), widen(p.value), mask),
              p.head_size + keys);
}

void test_head_sizes() {
  for (const int64_t head_size : {1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 96, 127, 128}) {
    const Problem p({0, 9, 10}, {0, 21, 26}, 3, head_size);
    for_each_kernels([&] { check(p, run(Context(), p)); });
  }
}

// Every number of queries gives each row the bits that it has among the most; every number of keys is right.
void test_tokens() {
  constexpr int64_t kMost = 130;
  const Problem many({0, kMost}, {0, 37}, 2, 20);
  for_each_kernels([&] {
    const Floats all = on_every_host([&](auto* context) { return run(context, many); });
    check(many, all);
    for (int64_t queries = 0; queries < kMost; queries += queries < 34 ? 1 : queries < 120 ? 15 : 3) {
      Problem some = many;
      some.query_offsets = {0, static_cast<int32_t>(queries)};
      some.query.resize(static_cast<size_t>(queries * many.channels()));
      CHECK(same_bits(run(Context(), some), slice(all, 0, queries * many.channels())));
    }
  });
  for (int32_t keys = 1; keys < 130; keys += keys < 34 ? 1 : keys < 64 ? 5 : 13) {
    const Problem p({0, 3}, {0, keys}, 2, 12);
    for_each_kernels([&] { check(p, run(Context(), p)); });
  }
}

// A sequence alone has the bits that it has in a batch, where others may lack queries, keys or both.
void test_batches() {
  const Problem batch({0, 7, 7, 7, 20, 49}, {0, 5, 5, 9, 40, 41}, 3, 17);
  for_each_kernels([&] {
    const Floats all = on_every_host([&](auto* context) { return run(context, batch); });
    check(batch, all);
    for (size_t s = 0; s + 1 < batch.query_offsets.size(); ++s) {
      const int64_t channels = batch.channels();
      const int32_t first = batch.query_offsets[s], last = batch.query_offsets[s + 1];
      const int32_t first_key = batch.key_offsets[s], last_key = batch.key_offsets[s + 1];
      const auto rows = [&](const Floats& x, int64_t begin, int64_t end) {
        return slice(x, begin * channels, end * channels);
      };
      Problem alone({0, last - first}, {0, last_key - first_key}, batch.heads, batch.head_size);
      alone.query = rows(batch.query, first, last);
      alone.key = rows(batch.key, first_key, last_key);
      alone.value = rows(batch.value, first_key, last_key);
      CHECK(same_bits(run(Context(), alone), rows(all, first, last)));
    }
  });
  const Problem no_keys({0, 4}, {0, 0}, 2, 3), nothing({0}, {0}, 2, 3);
  for_each_kernels([&] {
    CHECK(same_bits(run(Context(2), no_keys), Floats(4 * 6, 0.0f)));  // an empty sum
    CHECK(run(Context(2), nothing).empty());
  });
}

void test_mask_strides() {
  constexpr int64_t kQueries = 9, kKeys = 21, kHeads = 3;
  const Problem p({0, kQueries, 2 * kQueries}, {0, kKeys, 2 * kKeys}, kHeads, 8);
  for (const int64_t query_stride : {int64_t{0}, kKeys, kKeys + 2}) {
    for (const int64_t head_stride : {int64_t{0}, kQueries * (kKeys + 2)}) {
      for (const int64_t sequence_stride : {int64_t{0}, kHeads * kQueries * (kKeys + 2) + 1}) {
        const Floats data =
            random(sequence_stride + (kHeads - 1) * head_stride + (kQueries - 1) * query_stride + kKeys, 4);
        const squeezebert_mask mask = {sizeof(squeezebert_mask), data.data(), sequence_stride, head_stride,
                                       query_stride};
        for_each_kernels(
            [&] { check(p, on_every_host([&](auto* context) { return run(context, p, &mask); }), &mask); });
      }
    }
  }
}

// Masked keys take no part, to the bit; -FLT_MAX throughout gives the mean, -infinity throughout zeros.
void test_masked() {
  constexpr float kLowest = -std::numeric_limits<float>::max();
  constexpr int32_t kKeys[][2] = {{19, 20}, {19, 33}, {19, 64}, {19, 70}, {67, 131}};  // unmasked, and all
  for (const auto& [attended, keys] : kKeys) {
    const Problem shorter({0, 5}, {0, attended}, 2, 16);
    Problem padded({0, 5}, {0, keys}, 2, 16);
    std::copy(shorter.key.begin(), shorter.key.end(), padded.key.begin());
    std::copy(shorter.value.begin(), shorter.value.end(), padded.value.begin());
    for (const float hidden : {kLowest, -INFINITY}) {
      Floats data(static_cast<size_t>(keys), hidden);
      std::fill(data.begin(), data.begin() + attended, 0.0f);
      const squeezebert_mask mask = {sizeof(squeezebert_mask), data.data(), 0, 0, 0};
      const Floats everything(static_cast<size_t>(keys), hidden);
      const squeezebert_mask all_masked = {sizeof(squeezebert_mask), everything.data(), 0, 0, 0};
      for_each_kernels([&] {
        CHECK(same_bits(run(Context(), padded, &mask), run(Context(), shorter)));
        const Floats got = run(Context(), padded, &all_masked);
        if (hidden == kLowest) {
          Problem mean = padded;
          std::fill(mean.query.begin(), mean.query.end(), 0.0f);
          check(mean, got);
        } else {
          CHECK(same_bits(got, Floats(got.size(), 0.0f)));
        }
      });
    }
  }
}

// NaN spreads as the sums say: from a query to its row, from a key to all rows, from a value to its column (in int8 to
// all of them); always within its head and sequence.
void test_not_finite() {
  const Problem clean({0, 6, 11}, {0, 18, 22}, 3, 8);
  for (Floats Problem::* part : {&Problem::query, &Problem::key, &Problem::value}) {
    Problem p = clean;
    (p.*part)[4 * 24 + 8 + 3] = NAN;  // row 4 of the first sequence, head 1, channel 3
    for_each_kernels([&] {
      const Floats expected = run(Context(), clean), got = run(Context(), p);
      for (size_t i = 0; i < got.size(); ++i) {
        const size_t row = i / 24, head = i % 24 / 8, channel = i % 8;
        const bool hit = row < 6 && head == 1 && (part != &Problem::query || row == 4) &&
                         (part != &Problem::value || channel == 3 || g_format == SQUEEZEBERT_INT8);
        if (hit) {
          CHECK(std::isnan(got[i]));
        } else {
          CHECK(memcmp(&got[i], &expected[i], sizeof(float)) == 0);
        }
      }
    });
  }
}

// No ISA flushes denormals to zero, neither values nor what softmax makes of a score that is lower by 95.
void test_denormals() {
  Problem alone({0, 5}, {0, 1}, 3, 7);
  alone.value = denormals(3 * 7, 4);
  Problem unequal({0, 5}, {0, 2}, 1, 1);
  unequal.scale = 1.0f;
  unequal.query.assign(5, 1.0f);
  unequal.key = {0.0f, -95.0f};
  unequal.value = {0.0f, 1e38f};
  const double weight = exp(-95.0);
  for_each_isa([&] {
    const Floats got = run(Context(), alone);
    for (int64_t row = 0; row < 5; ++row) CHECK(same_bits(slice(got, row * 21, (row + 1) * 21), alone.value));
    // What csrc/math/exp.h grants a denormal result: 1.25 |x| + 1.8 of its units, and one for each rounding here.
    for (const float value : run(Context(), unequal)) {
      CHECK_NEAR(value, weight * 1e38, (1.25 * 95.0 + 4.0) * 0x1p-149 * 1e38);
    }
  });
}

// Scores far beyond what exp takes: softmax is then a choice of the largest. Rounded to 16 bits, a score of 10^4 errs
// by 4 and more, which makes it another choice.
void test_large_scores() {
  Problem p({0, 8}, {0, 30}, 2, 16);
  for (float& x : p.query) x *= 1e4f;
  for (const float scale : {1.0f, -2.0f, 0.0f}) {
    p.scale = scale;
    for_each_kernels([&] {
      if (!multiplies_half() && !multiplies_bfloat()) check(p, run(Context(), p));
    });
  }
}

}  // namespace

int main() {
  test_head_sizes();
  test_tokens();
  test_batches();
  test_mask_strides();
  test_masked();
  test_not_finite();
  test_denormals();
  test_large_scores();
  return check_result();
}
