// layer_norm: y = (x - mean) / sqrt(variance + epsilon) * weight + bias, over the channels of each row.
//
// Two passes, mean first and then the squared distance from it, as the definition says: one pass of sums and squares
// loses the variance of rows with a large mean. A row of 768 floats is 3 KiB, so every pass but the first reads L1.
#pragma once

#include <math.h>

#include "kernels/rows.h"
#include "simd/hot_loop.h"
#include "simd/row.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

struct RowStatistics {
  float mean;
  float scale;  // 1 / sqrt(variance + epsilon)
};

inline __attribute__((always_inline)) RowStatistics row_statistics(const float* x, float epsilon, int64_t channels) {
  const float count = static_cast<float>(channels);
  const auto add_value = [&](int64_t c, int n, Vec sum)
                             __attribute__((always_inline)) { return sum + load_some(x + c, n); };
  const float mean = sum_over(SQUEEZEBERT_HOT_LOOP("LayerNorm, mean"), channels, add_value) / count;
  const auto squared_distance = [&](int64_t c, int n, Vec sum) __attribute__((always_inline)) {
    Vec distance = load_some(x + c, n) - broadcast(mean);
    if (n < Vec::kLanes) {  // the lanes past the end must add nothing
      float lanes[Vec::kLanes];
      store(lanes, zero());
      store_partial(lanes, distance, n);
      distance = load(lanes);
    }
    return fma(distance, distance, sum);
  };
  const float squares = sum_over(SQUEEZEBERT_HOT_LOOP("LayerNorm, variance"), channels, squared_distance);
  return {mean, 1.0f / sqrtf(squares / count + epsilon)};
}

inline void layer_norm_row(const float* x, const float* weight, const float* bias, float epsilon, int64_t channels,
                           float* y) {
  const RowStatistics row = row_statistics(x, epsilon, channels);
  const auto normalize = [&](int64_t c, int n) __attribute__((always_inline)) {
    const Vec normal =
        SQUEEZEBERT_HOT_LOOP("LayerNorm, normalize")(load_some(x + c, n) - broadcast(row.mean)) * broadcast(row.scale);
    store_some(y + c, fma(normal, load_some(weight + c, n), load_some(bias + c, n)), n);
  };
  for_each_vector(channels, normalize);
}

inline void layer_norm(const LayerNormArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    layer_norm_row(a.x + r * a.x_stride, a.weight, a.bias, a.epsilon, a.channels, a.y + r * a.y_stride);
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
