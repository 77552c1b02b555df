// layer_norm: y = (x - mean) / sqrt(variance + epsilon) * weight + bias, over the channels of each row.
//
// Two passes, mean first and then the squared distance from it, as the definition says: one pass of sums and squares
// loses the variance of rows with a large mean. A row of 768 floats is 3 KiB, so every pass but the first reads L1.
#pragma once

#include <math.h>

#include "kernels/kernels.h"
#include "simd/hot_loop.h"

namespace squeezebert::SQUEEZEBERT_ISA {

inline Vec load_some(const float* p, int n) { return n == Vec::kLanes ? load(p) : load_partial(p, n); }
inline void store_some(float* p, Vec x, int n) {
  if (n == Vec::kLanes) {
    store(p, x);
  } else {
    store_partial(p, x, n);
  }
}

// Calls body(first channel, count) for every vector of a row; count is kLanes for all but perhaps the last.
template <class Body>
inline __attribute__((always_inline)) void for_each_vector(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + Vec::kLanes <= channels; c += Vec::kLanes) body(c, Vec::kLanes);
  if (c < channels) body(c, static_cast<int>(channels - c));
}

// Four partial sums hide the latency of the add (4 cycles at two a cycle on current x86). Position in the row alone
// decides which lane and which partial sum takes an element, so the order of the sum is the same everywhere.
template <class Name, class Term>
inline __attribute__((always_inline)) float sum_over(const Name& name, int64_t channels, const Term& term) {
  constexpr int kLanes = Vec::kLanes;
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  int64_t c = 0;
  for (; c + 4 * kLanes <= channels; c += 4 * kLanes) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) sums[u] = term(c + u * kLanes, kLanes, sums[u]);
    sums[3] = name(sums[3]);
  }
  for (int u = 0; c < channels; c += kLanes, ++u) {
    const int64_t left = channels - c;
    sums[u] = term(c, static_cast<int>(left < kLanes ? left : kLanes), sums[u]);
  }
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

inline void layer_norm_row(const float* x, const float* weight, const float* bias, float epsilon, int64_t channels,
                           float* y) {
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
  const float scale = 1.0f / sqrtf(squares / count + epsilon);
  const auto normalize = [&](int64_t c, int n) __attribute__((always_inline)) {
    const Vec normal =
        SQUEEZEBERT_HOT_LOOP("LayerNorm, normalize")(load_some(x + c, n) - broadcast(mean)) * broadcast(scale);
    store_some(y + c, fma(normal, load_some(weight + c, n), load_some(bias + c, n)), n);
  };
  for_each_vector(channels, normalize);
}

inline void layer_norm(const LayerNormArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    layer_norm_row(a.x + r * a.x_stride, a.weight, a.bias, a.epsilon, a.channels, a.y + r * a.y_stride);
  }
}

}  // namespace squeezebert::SQUEEZEBERT_ISA
