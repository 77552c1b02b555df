// transpose: y[c][r] = x[r][c]; the rows of a left side for products that sum over tokens.
#pragma once

#include "kernels/rows.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

inline void transpose(const TransposeArgs& a) {
  constexpr int kLanes = Vec::kLanes;
  const int64_t rows = a.rows / kLanes * kLanes, columns = a.columns / 4 * 4;
  for (int64_t r = 0; r < rows; r += kLanes) {
    for (int64_t c = 0; c < columns; c += 4) {
      Vec column[4];
      load_transposed(a.x + r * a.x_stride + c, a.x_stride, column);
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) store(a.y + (c + u) * a.y_stride + r, column[u]);
    }
  }
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = r < rows ? columns : 0; c < a.columns; ++c) a.y[c * a.y_stride + r] = a.x[r * a.x_stride + c];
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
