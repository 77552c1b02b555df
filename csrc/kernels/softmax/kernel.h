// softmax: rows of scores become exp(score + mask - max), and the reciprocal of their sum beside them.
//
// Two passes over a row that is in L1 or L2: the largest score first, then the exponentials and their sum. They are
// left unnormalized, because the product that follows multiplies its result, which is narrower, by the reciprocal.
#pragma once

#include <float.h>
#include <math.h>

#include "kernels/rows.h"
#include "math/exp.h"
#include "simd/hot_loop.h"
#include "simd/row.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

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
  const float sum = sum_over(SQUEEZEBERT_HOT_LOOP("softmax, exp and sum"), padded,
                             [=](int64_t j, int, Vec partial) __attribute__((always_inline)) {
                               const Vec power = exp(load(scores + j) - limit);
                               store(scores + j, power);
                               return partial + power;
                             });
  return sum == 0.0f ? 0.0f : 1.0f / sum;
}

inline void softmax(const SoftmaxArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* mask = a.mask ? a.mask + r * a.mask_stride : nullptr;
    a.reciprocals[r] = softmax_row(a.scores + r * a.stride, mask, a.keys);
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
