// add_layer_norm: y = layer_norm(x + residual), keeping what its derivative needs, and that derivative.
//
//   normal = (x + residual - mean) * scale,  y = normal * weight + bias
//   grad_x = scale * (g - mean(g) - normal * mean(g * normal)),  g = grad_y * weight
//
// The gradients of weight and bias, sums over tokens of grad_y * normal and of grad_y, are column_sums'.
#pragma once

#include "kernels/layer_norm/kernel.h"
#include "kernels/rows.h"
#include "simd/row.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

inline void add_layer_norm(const AddLayerNormArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    float* x = a.x + r * a.x_stride;
    const float* residual = a.residual + r * a.residual_stride;
    float* y = a.y + r * a.y_stride;
    for_each_vector(a.channels,
                    [&](int64_t c, int n) { store_some(x + c, load_some(x + c, n) + load_some(residual + c, n), n); });
    const RowStatistics row = row_statistics(x, a.epsilon, a.channels);
    a.scales[r] = row.scale;
    for_each_vector(a.channels, [&](int64_t c, int n) {
      const Vec normal = (load_some(x + c, n) - broadcast(row.mean)) * broadcast(row.scale);
      store_some(x + c, normal, n);
      store_some(y + c, fma(normal, load_some(a.weight + c, n), load_some(a.bias + c, n)), n);
    });
  }
}

inline void layer_norm_backward(const LayerNormBackwardArgs& a) {
  const float count = static_cast<float>(a.channels);
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* grad_y = a.grad_y + r * a.grad_y_stride;
    const float* normal = a.normal + r * a.normal_stride;
    float* grad_x = a.grad_x + r * a.grad_x_stride;
    const auto unnamed = [](Vec sum) __attribute__((always_inline)) { return sum; };
    const auto gradient = [&](int64_t c, int n) __attribute__((always_inline)) {
      return load_some(grad_y + c, n) * load_some(a.weight + c, n);
    };
    const auto add = [&](int64_t c, int n, Vec sum) __attribute__((always_inline)) { return sum + gradient(c, n); };
    const auto add_product = [&](int64_t c, int n, Vec sum) __attribute__((always_inline)) {
      return fma(gradient(c, n), load_some(normal + c, n), sum);
    };
    const Vec mean = broadcast(sum_over(unnamed, a.channels, add) / count);
    const Vec along = broadcast(sum_over(unnamed, a.channels, add_product) / count);
    const Vec scale = broadcast(a.scales[r]);
    for_each_vector(a.channels, [&](int64_t c, int n) __attribute__((always_inline)) {
      store_some(grad_x + c, fnma(load_some(normal + c, n), along, gradient(c, n) - mean) * scale, n);
    });
    if (!a.y) continue;
    float* y = a.y + r * a.y_stride;
    for_each_vector(a.channels, [&](int64_t c, int n) {
      store_some(y + c, fma(load_some(normal + c, n), load_some(a.weight + c, n), load_some(a.bias + c, n)), n);
    });
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
