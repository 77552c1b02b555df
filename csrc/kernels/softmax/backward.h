// softmax_backward: from the exponentials e that softmax left, the reciprocal of their sum and the gradient of the
// probabilities after dropout, the gradient of what was multiplied to scores.
//
//   p = e * reciprocal,  dropped = p * factor
//   grad_p = grad_dropped * factor,  grad = scale * p * (grad_p - sum over keys of p * grad_p)
#pragma once

#include "kernels/dropout/kernel.h"
#include "kernels/rows.h"
#include "simd/row.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

inline void softmax_backward(const SoftmaxBackwardArgs& a) {
  const auto unnamed = [](Vec sum) __attribute__((always_inline)) { return sum; };
  const bool drops = a.dropout.threshold != 0;
  for (int64_t r = 0; r < a.rows; ++r) {
    float* scores = a.scores + r * a.stride;
    float* grad = a.grad + r * a.stride;
    if (drops) {
      dropout_factors(a.dropout, row_key(a.dropout, r), 0, a.keys, a.factors);
      for_each_vector(a.keys, [&](int64_t j, int n) {
        store_some(grad + j, load_some(grad + j, n) * load_some(a.factors + j, n), n);
      });
    }
    const auto add_product = [&](int64_t j, int n, Vec sum) __attribute__((always_inline)) {
      return fma(load_some(scores + j, n), load_some(grad + j, n), sum);
    };
    const Vec reciprocal = broadcast(a.reciprocals[r]);
    const Vec mean = broadcast(sum_over(unnamed, a.keys, add_product)) * reciprocal;
    const Vec scale = broadcast(a.scale);
    for_each_vector(a.keys, [&](int64_t j, int n) __attribute__((always_inline)) {
      const Vec p = load_some(scores + j, n) * reciprocal;
      store_some(grad + j, (load_some(grad + j, n) - mean) * p * scale, n);
      store_some(scores + j, drops ? p * load_some(a.factors + j, n) : p, n);
    });
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
