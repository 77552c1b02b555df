// grouped_conv1x1, the micro-kernel: one panel of the product that every layer, and attention, is made of.
//
//   c[i][j] = epilogue( start[i][j] + sum over k of x[i][k] * panel[k][j] )
//
// x is token-major with any row stride. A panel holds Tile::kColumns output channels of one group, k-major, so that the
// inner loop reads it as one stream; its elements are float32 or float16 (simd/half_panels.h). Every sum runs over k in
// order in one accumulator, started from the bias (in simd/neon_hp.h, in chunks of k that are always the same),
// whatever the tile's height: the bits of a row depend on nothing but the row.
#pragma once

#include "kernels/kernels.h"
#include "math/gelu.h"
#include "simd/hot_loop.h"

namespace squeezebert::SQUEEZEBERT_ISA {

// Columns j*kLanes.. of a row of up to kColumns: whole vectors, then one partial vector, then none.
inline int lanes_left(int columns, int j) { return columns - j * Vec::kLanes; }

inline Vec load_columns(const float* p, int columns, int j) {
  const int n = lanes_left(columns, j);
  return n >= Vec::kLanes ? load(p + j * Vec::kLanes) : n > 0 ? load_partial(p + j * Vec::kLanes, n) : zero();
}

inline void store_columns(float* p, Vec x, int columns, int j) {
  const int n = lanes_left(columns, j);
  if (n >= Vec::kLanes) {
    store(p + j * Vec::kLanes, x);
  } else if (n > 0) {
    store_partial(p + j * Vec::kLanes, x, n);
  }
}

// One step of the inner loop: kDepth values of k for every row of the tile.
template <int kIndex = 0>
inline __attribute__((always_inline)) void multiply_row(RowVec row, const Vec* weights, Vec* sums) {
#pragma GCC unroll 8
  for (int j = 0; j < Tile::kVectors; ++j) {
    sums[j] = fma_row<kIndex>(row, weights[kIndex * Tile::kVectors + j], sums[j]);
  }
  if constexpr (kIndex + 1 < Tile::kDepth) multiply_row<kIndex + 1>(row, weights, sums);
}

template <int kRows, class Body>
inline __attribute__((always_inline)) void for_each_sum(const Body& body) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < Tile::kVectors; ++j) body(i, j);
  }
}

// GELU where registers have no room for it beside the sums, and its constants no operand of their own in memory (NEON):
// by way of the stack, four vectors at a time, which an in-order core needs to have something to do meanwhile.
template <int kRows>
inline __attribute__((always_inline)) void gelu_in_memory(Vec (&sums)[kRows][Tile::kVectors]) {
  constexpr int kTogether = 4;
  constexpr int kCount = (kRows * Tile::kVectors + kTogether - 1) / kTogether * kTogether;
  float lanes[kCount * Vec::kLanes] = {};
  for_each_sum<kRows>([&](int i, int j) { store(lanes + (i * Tile::kVectors + j) * Vec::kLanes, sums[i][j]); });
#pragma GCC unroll 1
  for (float* p = lanes; p != lanes + kCount * Vec::kLanes; p += kTogether * Vec::kLanes) {
    Vec x[kTogether];
#pragma GCC unroll 4
    for (int v = 0; v < kTogether; ++v) x[v] = load(p + v * Vec::kLanes);
#pragma GCC unroll 4
    for (int v = 0; v < kTogether; ++v) x[v] = gelu(x[v]);
    x[0] = SQUEEZEBERT_HOT_LOOP("GELU")(x[0]);
#pragma GCC unroll 4
    for (int v = 0; v < kTogether; ++v) store(p + v * Vec::kLanes, x[v]);
  }
  for_each_sum<kRows>([&](int i, int j) { sums[i][j] = load(lanes + (i * Tile::kVectors + j) * Vec::kLanes); });
}

// Steps of k between two looks ahead. They are not unrolled: no faster, and GCC 12 then spills three sums.
constexpr int kStep = 4;

template <int kRows>
void tile(const PanelArgs& a, int64_t first_row, const char* ahead, ptrdiff_t ahead_step) {
  constexpr int kVectors = Tile::kVectors;
  const float* x = a.x + first_row * a.x_stride;

  // Every choice below is made once for the tile, none per element: at a depth of 192 a tile lasts some 2,500 cycles,
  // and 26 elements with three branches each would be 5 % of them.
  Vec sums[kRows][kVectors];
  if (a.accumulate) {
    const float* c = a.c + first_row * a.c_stride;
    for_each_sum<kRows>([&](int i, int j) { sums[i][j] = load_columns(c + i * a.c_stride, a.columns, j); });
  } else if (a.bias) {
    Vec bias[kVectors];
    for (int j = 0; j < kVectors; ++j) bias[j] = load_columns(a.bias, a.columns, j);
    for_each_sum<kRows>([&](int i, int j) { sums[i][j] = bias[j]; });
  } else {
    for_each_sum<kRows>([&](int i, int j) { sums[i][j] = zero(); });
  }

  const ptrdiff_t stride = a.x_stride;
  const auto* panel = static_cast<const Element*>(a.panel);
  int64_t k = 0;
  if constexpr (Tile::kOwnSteps) {  // simd/ISA.h has the inner loop
    k = multiply_steps(sums, x, stride, panel, a.depth, ahead, ahead_step);
  } else {
    // Rows are reached from every third one (base, base + stride, base + 2 * stride are x86 addressing modes), so the
    // 14 rows of the tallest tile cost 5 pointers and one stride, not 14 pointers.
    constexpr int kBases = (kRows + 2) / 3;
    const float* base[kBases];
#pragma GCC unroll 8
    for (int b = 0; b < kBases; ++b) base[b] = x + 3 * b * stride;

    const auto step = [&]() __attribute__((always_inline)) {
      Vec weights[Tile::kDepth * kVectors];
#pragma GCC unroll 16
      for (int j = 0; j < Tile::kDepth * kVectors; ++j) weights[j] = load(panel + j * Vec::kLanes);
      panel += Tile::kDepth * Tile::kColumns;
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) multiply_row(load_row(base[i / 3] + (i % 3) * stride), weights, sums[i]);
#pragma GCC unroll 8
      for (int b = 0; b < kBases; ++b) base[b] += Tile::kDepth;
    };
    for (; k + kStep <= a.depth; k += kStep) {
      for (ptrdiff_t line = 0; line < ahead_step; line += 64) __builtin_prefetch(ahead + line, 0, 3);
      ahead += ahead_step;
#pragma GCC unroll 1
      for (int u = 0; u < kStep / Tile::kDepth; ++u) step();
    }
    for (; k + Tile::kDepth <= a.depth; k += Tile::kDepth) step();
  }
  for (; k < a.depth; ++k) {  // only where kDepth > 1
    for (int i = 0; i < kRows; ++i) {
      const Vec xi = broadcast(x[i * stride + k]);
      for (int j = 0; j < kVectors; ++j) sums[i][j] = fma(xi, load(panel + j * Vec::kLanes), sums[i][j]);
    }
    panel += Tile::kColumns;
  }

  if (a.row_scale) {
    for_each_sum<kRows>([&](int i, int j) { sums[i][j] = sums[i][j] * broadcast(a.row_scale[first_row + i]); });
  }
  if (a.residual) {
    const float* residual = a.residual + first_row * a.residual_stride;
    for_each_sum<kRows>(
        [&](int i, int j) { sums[i][j] = sums[i][j] + load_columns(residual + i * a.residual_stride, a.columns, j); });
  }
  if (a.gelu) {
    if constexpr (Tile::kOwnSteps) {
      gelu_in_memory(sums);
    } else {
      for_each_sum<kRows>([&](int i, int j) { sums[i][j] = gelu(sums[i][j]); });
    }
  }
  // Named here, not at the top, where it would take registers from the loop; and the stride is copied, because the
  // compiler cannot know that storing to c leaves `a` alone.
  float* c = a.c + first_row * a.c_stride;
  const ptrdiff_t c_stride = a.c_stride;
  if (a.columns == Tile::kColumns) {
    for_each_sum<kRows>([&](int i, int j) { store(c + i * c_stride + j * Vec::kLanes, sums[i][j]); });
  } else {
    for_each_sum<kRows>([&](int i, int j) { store_columns(c + i * c_stride, sums[i][j], a.columns, j); });
  }
}

template <int kRows = Tile::kRows>
void tile_of(int64_t rows, const PanelArgs& a, int64_t first_row, const char* ahead, ptrdiff_t ahead_step) {
  if (rows == kRows) return tile<kRows>(a, first_row, ahead, ahead_step);
  if constexpr (kRows > 1) tile_of<kRows - 1>(rows, a, first_row, ahead, ahead_step);
}

inline void grouped_conv1x1_panel(const PanelArgs& a) {
  // The fewest tiles that cover the rows, their heights as even as they can be: 128 rows are 8 x 13 + 2 x 12, not 9 x
  // 14 and a 2 that would run at a seventh of the rate.
  const int64_t tiles = (a.rows + Tile::kRows - 1) / Tile::kRows;
  // Each tile fetches its share of the panel that comes after this one, spread over its steps; without it the first
  // tile of every panel waits for memory.
  constexpr ptrdiff_t kStepBytes = kStep * Tile::kColumns * static_cast<ptrdiff_t>(sizeof(Element));
  const char* ahead = static_cast<const char*>(a.next_panel);
  const ptrdiff_t ahead_step = tiles > 0 ? (kStepBytes + tiles - 1) / tiles : 0;
  int64_t row = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t rows = a.rows / tiles + (t < a.rows % tiles);
    tile_of(rows, a, row, ahead, ahead_step);
    row += rows;
    ahead += ahead_step * (a.depth / kStep);
  }
}

// Four columns of k at a time where a row's values are neighbours (a weight, or keys), a plain copy where a column's
// are (values), one by one otherwise (the taps of a wider kernel).
inline void pack_panel(const float* weight, ptrdiff_t stride, ptrdiff_t step, int64_t depth, int columns,
                       void* packed) {
  auto* const panel = static_cast<Element*>(packed);
  constexpr int kLanes = Vec::kLanes;
  const int whole = step == 1 ? columns / kLanes * kLanes : 0;
  const int64_t depth4 = depth / 4 * 4;
  for (int j = 0; j < whole; j += kLanes) {
    for (int64_t k = 0; k < depth4; k += 4) {
      Vec column[4];
      load_transposed(weight + j * stride + k, stride, column);
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) store(panel + (k + u) * Tile::kColumns + j, column[u]);
    }
  }
  if (stride == 1) {
    for (int64_t k = 0; k < depth; ++k) {
      const float* row = weight + k * step;
      Element* out = panel + k * Tile::kColumns;
      if (columns == Tile::kColumns) {
#pragma GCC unroll 8
        for (int j = 0; j < Tile::kVectors; ++j) store(out + j * kLanes, load(row + j * kLanes));
      } else {
        for (int j = 0; j < Tile::kVectors; ++j) store(out + j * kLanes, load_columns(row, columns, j));
      }
    }
    return;
  }
  for (int64_t k = columns == whole ? depth4 : 0; k < depth; ++k) {
    Element* row = panel + k * Tile::kColumns;
    for (int j = k < depth4 ? whole : 0; j < columns; ++j) store_one(row + j, weight[j * stride + k * step]);
  }
  if (columns == Tile::kColumns) return;
  for (int64_t k = 0; k < depth; ++k) {
    for (int j = columns; j < Tile::kColumns; ++j) store_one(panel + k * Tile::kColumns + j, 0.0f);
  }
}

}  // namespace squeezebert::SQUEEZEBERT_ISA
