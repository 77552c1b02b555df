// The register tile: kRows x kColumns of a product, in three parts.
//
//   c[i][j] = finish( start[i][j] + sum over k of left[i][k] * right[k][j] )
//
// start() and finish() are shared; the sums themselves, add_products(), are each product's own (products/vector_sums.h,
// neon_sums.h, float16_neon_fp16.h). Every float32 sum runs over k in order in one accumulator (or in chunks of k that
// are always the same), whatever the tile's height: the bits of a row depend on nothing but the row. Sums of whole
// numbers, which are exact, are added to the start when they are done, times their scales (kQuantized).
#pragma once

#include "math/gelu.h"
#include "products/product.h"
#include "simd/hot_loop.h"
#include "simd/vector.h"

#include SQUEEZEBERT_PRODUCT

namespace squeezebert::SQUEEZEBERT_UNIT {

constexpr PanelLayout kLayout = {
    .columns = Tile::kColumns, .k_group = kKGroup, .element_bytes = sizeof(Element), .tail_bytes = kTailBytes};

// One panel of a product: the fields of ProductArgs, moved to the panel's first column.
struct PanelArgs {
  int64_t depth = 0;
  int columns = 0;  // at most Tile::kColumns
  const Left* left = nullptr;
  ptrdiff_t left_stride = 0;
  const Element* right = nullptr;
  float* c = nullptr;
  ptrdiff_t c_stride = 0;
  bool accumulate = false;
  const float* bias = nullptr;
  const float* row_scale = nullptr;
  const float* residual = nullptr;
  ptrdiff_t residual_stride = 0;
  bool gelu = false;
};

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

template <int kRows>
using Sums = Vec[kRows][Tile::kVectors];

template <int kRows, class Body>
inline __attribute__((always_inline)) void for_each_sum(const Body& body) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < Tile::kVectors; ++j) body(i, j);
  }
}

// Every choice here and in finish() is made once for the tile, none per element: at a depth of 192 a tile lasts some
// 2,500 cycles, and 26 elements with three branches each would be 5 % of them.
template <int kRows>
inline __attribute__((always_inline)) void start(Sums<kRows>& sums, const PanelArgs& a, int64_t first_row) {
  if (a.accumulate) {
    const float* c = a.c + first_row * a.c_stride;
    for_each_sum<kRows>([&](int i, int j) { sums[i][j] = load_columns(c + i * a.c_stride, a.columns, j); });
  } else if (a.bias) {
    Vec bias[Tile::kVectors];
    for (int j = 0; j < Tile::kVectors; ++j) bias[j] = load_columns(a.bias, a.columns, j);
    for_each_sum<kRows>([&](int i, int j) { sums[i][j] = bias[j]; });
  } else {
    for_each_sum<kRows>([&](int i, int j) { sums[i][j] = zero(); });
  }
}

// The same of whole numbers: start + their scaled values, one at a time, so that only one of the two is in registers. A
// row's scale begins what follows its values, and the columns' scales the panel's tail.
template <int kRows>
inline __attribute__((always_inline)) void start_scaled(Sums<kRows>& sums, const Ints (&whole)[kRows][Tile::kVectors],
                                                        const Left* left, const PanelArgs& a, int64_t first_row) {
  const auto* row_scales = reinterpret_cast<const char*>(left + kLayout.padded_depth(a.depth));
  const ptrdiff_t row_bytes = a.left_stride * static_cast<ptrdiff_t>(sizeof(Left));
  const auto* tail = reinterpret_cast<const float*>(reinterpret_cast<const char*>(a.right) + kLayout.tail_at(a.depth));
  Vec column_scale[Tile::kVectors];
  for (int j = 0; j < Tile::kVectors; ++j) column_scale[j] = load(tail + j * Vec::kLanes);
  const auto scaled = [&](int i, int j) __attribute__((always_inline)) {
    return to_floats(whole[i][j]) * broadcast(*reinterpret_cast<const float*>(row_scales + i * row_bytes));
  };
  if (a.accumulate) {
    const float* c = a.c + first_row * a.c_stride;
    for_each_sum<kRows>([&](int i, int j) {
      sums[i][j] = fma(scaled(i, j), column_scale[j], load_columns(c + i * a.c_stride, a.columns, j));
    });
  } else {
    Vec bias[Tile::kVectors];
    for (int j = 0; j < Tile::kVectors; ++j) bias[j] = a.bias ? load_columns(a.bias, a.columns, j) : zero();
    for_each_sum<kRows>([&](int i, int j) { sums[i][j] = fma(scaled(i, j), column_scale[j], bias[j]); });
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

template <int kRows>
inline __attribute__((always_inline)) void finish(Sums<kRows>& sums, const PanelArgs& a, int64_t first_row) {
  if (a.row_scale) {
    for_each_sum<kRows>([&](int i, int j) { sums[i][j] = sums[i][j] * broadcast(a.row_scale[first_row + i]); });
  }
  if (a.residual) {
    const float* residual = a.residual + first_row * a.residual_stride;
    for_each_sum<kRows>(
        [&](int i, int j) { sums[i][j] = sums[i][j] + load_columns(residual + i * a.residual_stride, a.columns, j); });
  }
  if (a.gelu) {
    if constexpr (Tile::kGeluInMemory) {
      gelu_in_memory<kRows>(sums);
    } else {
      for_each_sum<kRows>([&](int i, int j) { sums[i][j] = gelu(sums[i][j]); });
    }
  }
  // Named here, not in tile(), where it would take registers from the loop; and the stride is copied, because the
  // compiler cannot know that storing to c leaves `a` alone.
  float* c = a.c + first_row * a.c_stride;
  const ptrdiff_t c_stride = a.c_stride;
  if (a.columns == Tile::kColumns) {
    for_each_sum<kRows>([&](int i, int j) { store(c + i * c_stride + j * Vec::kLanes, sums[i][j]); });
  } else {
    for_each_sum<kRows>([&](int i, int j) { store_columns(c + i * c_stride, sums[i][j], a.columns, j); });
  }
}

template <int kRows>
void tile(const PanelArgs& a, int64_t first_row, const char* ahead, ptrdiff_t ahead_step) {
  Sums<kRows> sums;
  if constexpr (kQuantized) {
    Ints whole[kRows][Tile::kVectors];
    const Left* left = a.left + first_row * a.left_stride;
    add_products<kRows>(whole, left, a.left_stride, a.right, a.depth, ahead, ahead_step);
    start_scaled<kRows>(sums, whole, left, a, first_row);
  } else {
    start<kRows>(sums, a, first_row);
    add_products<kRows>(sums, a.left + first_row * a.left_stride, a.left_stride, a.right, a.depth, ahead, ahead_step);
  }
  finish<kRows>(sums, a, first_row);
}

template <int kRows = Tile::kRows>
void tile_of(int64_t rows, const PanelArgs& a, int64_t first_row, const char* ahead, ptrdiff_t ahead_step) {
  if (rows == kRows) return tile<kRows>(a, first_row, ahead, ahead_step);
  if constexpr (kRows > 1) tile_of<kRows - 1>(rows, a, first_row, ahead, ahead_step);
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
