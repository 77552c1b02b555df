// gelu, row by row, and its derivative: gelu'(x) = Phi(x) + x phi(x).
#pragma once

#include "kernels/rows.h"
#include "math/gelu_slope.h"
#include "simd/row.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

inline void gelu_rows(const GeluArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.x_stride;
    float* y = a.y + r * a.y_stride;
    for_each_vector(a.channels, [&](int64_t c, int n) { store_some(y + c, gelu(load_some(x + c, n)), n); });
  }
}

inline void gelu_backward(const GeluArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.x_stride;
    float* y = a.y + r * a.y_stride;
    float* grad = a.grad + r * a.grad_stride;
    for_each_vector(a.channels, [&](int64_t c, int n) __attribute__((always_inline)) {
      const GeluAndSlope at = gelu_and_slope(load_some(x + c, n));
      store_some(y + c, at.value, n);
      store_some(grad + c, load_some(grad + c, n) * at.slope, n);
    });
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
