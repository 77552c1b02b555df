// column_sums: sums[c] = sum over rows of x[r][c], or of x[r][c] * y[r][c]: gradients of biases and LayerNorms.
//
// 64 columns at a time, each with one accumulator that takes the rows in order.
#pragma once

#include "kernels/rows.h"
#include "simd/row.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

inline void column_sums(const ColumnSumsArgs& a) {
  constexpr int kLanes = Vec::kLanes;
  for (int64_t first = 0; first < a.channels; first += kSumLanes) {
    const int64_t left = a.channels - first;
    const float* x = a.x + first;
    const float* y = a.y ? a.y + first : nullptr;
    const auto add = [&](Vec(&sums)[kSums], int64_t row, int u, int n) __attribute__((always_inline)) {
      const Vec value = load_some(x + row * a.x_stride + u * kLanes, n);
      sums[u] = y ? fma(value, load_some(y + row * a.y_stride + u * kLanes, n), sums[u]) : sums[u] + value;
    };
    Vec sums[kSums];
#pragma GCC unroll 16
    for (int u = 0; u < kSums; ++u) sums[u] = zero();
    if (left >= kSumLanes) {
      for (int64_t r = 0; r < a.rows; ++r) {
#pragma GCC unroll 16
        for (int u = 0; u < kSums; ++u) add(sums, r, u, kLanes);
      }
#pragma GCC unroll 16
      for (int u = 0; u < kSums; ++u) store(a.sums + first + u * kLanes, sums[u]);
      continue;
    }
    for (int64_t r = 0; r < a.rows; ++r) {
      for (int u = 0; u * kLanes < left; ++u) {
        add(sums, r, u, left - u * kLanes < kLanes ? static_cast<int>(left - u * kLanes) : kLanes);
      }
    }
    for (int u = 0; u * kLanes < left; ++u) {
      store_some(a.sums + first + u * kLanes, sums[u],
                 left - u * kLanes < kLanes ? static_cast<int>(left - u * kLanes) : kLanes);
    }
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
