// softmax: rows of scores become exp(score + mask - max), and the reciprocal of their sum beside them.
//
// Passes over a row that is in L1 or L2: the largest score, the exponentials, their sum. (Exponentials and sum in one
// pass would need more registers than NEON has.) They are left unnormalized, because the product that follows
// multiplies its result, which is narrower, by the reciprocal.
#pragma once

#include <float.h>
#include <math.h>

#include "kernels/rows.h"
#include "math/exp.h"
#include "simd/hot_loop.h"
#include "simd/row.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// Vectors of exponentials at once, which an in-order core needs to have something to do meanwhile.
constexpr int kTogether = 4;

// The lanes past the last key are set to -infinity first and so come out as zeros.
inline float softmax_row(float* scores, const float* mask, int64_t keys) {
  constexpr int kLanes = Vec::kLanes;
  store(scores + keys, broadcast(-INFINITY));
  // Not -infinity: a row that is -infinity throughout then has exponentials and a sum of zero, not NaN.
  Vec largest = broadcast(-FLT_MAX);
  for_each_vector(keys, [&](int64_t j, int n) __attribute__((always_inline)) {
    Vec score = load(scores + j);
    if (mask) {
      score = score + load_some(mask + j, n);
      store(scores + j, score);
    }
    largest = SQUEEZEBERT_HOT_LOOP("softmax, maximum")(max(score, largest));
  });
  const Vec limit = broadcast(reduce_max(largest));
  const int64_t padded = (keys + kLanes - 1) / kLanes * kLanes;
  int64_t j = 0;
  for (; j + kTogether * kLanes <= padded; j += kTogether * kLanes) {
    Vec power[kTogether];
#pragma GCC unroll 4
    for (int u = 0; u < kTogether; ++u) power[u] = exp(load(scores + j + u * kLanes) - limit);
    power[0] = SQUEEZEBERT_HOT_LOOP("softmax, exp")(power[0]);
#pragma GCC unroll 4
    for (int u = 0; u < kTogether; ++u) store(scores + j + u * kLanes, power[u]);
  }
  for (; j < padded; j += kLanes) store(scores + j, exp(load(scores + j) - limit));
  const auto add = [&](int64_t k, int, Vec sum) __attribute__((always_inline)) { return sum + load(scores + k); };
  const float sum = sum_over(SQUEEZEBERT_HOT_LOOP("softmax, sum"), padded, add);
  return sum == 0.0f ? 0.0f : 1.0f / sum;
}

inline void softmax(const SoftmaxArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* mask = a.mask ? a.mask + r * a.mask_stride : nullptr;
    a.reciprocals[r] = softmax_row(a.scores + r * a.stride, mask, a.keys);
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
