// int8 on NEON without dot products (before Armv8.2): SMULL and SMLAL of 8 bytes by 8, which SADALP adds to sums in
// pairs. Neither saturates: two products are at most 2 * 128 * 127 < 2^15 (products/int8_neon_rows.h).
#pragma once

#include "products/int8_neon_rows.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// 2 x 8, of which each sum has a vector of its own until the end: 16 sums + 2 rows + a column and its products.
struct Tile {
  static constexpr int kRows = 2;
  static constexpr int kVectors = 2;
  static constexpr int kColumns = kPanelColumns;
  static constexpr bool kGeluInMemory = true;
};
constexpr int kKGroup = 16;
constexpr int kStep = kKGroup;

constexpr auto kLeftStride = QuantizedLeft<PreparedBytes<kKGroup>>::stride;
constexpr auto kPackLeft = QuantizedLeft<PreparedBytes<kKGroup>>::pack;

// Four k of four columns, 16 bytes apart.
inline void store_four(Element* at, const Ints (&four)[4]) {
  int32_t columns[4];
  store(columns, join(four));
  for (int j = 0; j < 4; ++j) memcpy(at + j * kKGroup, columns + j, sizeof columns[j]);
}
inline void finish_panel(Element* panel, int64_t depth) { add_up_columns<kKGroup>(panel, depth); }

inline __attribute__((always_inline)) int32x4_t add_products_of_bytes(int32x4_t sum, int8x16_t x, int8x16_t y) {
  const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(y));
  return vpadalq_s16(sum, vmlal_s8(low, vget_high_s8(x), vget_high_s8(y)));
}

inline Multiplied fma(Multiplied sum, Multiplied x, Multiplied y) {
  asm volatile("" : "+w"(x.v));  // not one product for all
  return {add_products_of_bytes(sum.v, vreinterpretq_s8_s32(x.v), vreinterpretq_s8_s32(y.v))};
}

template <int kRows>
inline __attribute__((always_inline)) void add_products(Ints (&sums)[kRows][Tile::kVectors], const Left* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  int32x4_t partial[kRows][Tile::kColumns];
#pragma GCC unroll 2
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < Tile::kColumns; ++j) partial[i][j] = vdupq_n_s32(0);
  }
  const Element* columns = panel;
  for (int64_t k = 0; k < depth; k += kKGroup) {
    partial[0][0] = SQUEEZEBERT_HOT_LOOP("micro-kernel")(Ints{partial[0][0]}).v;
    __builtin_prefetch(ahead, 0, 3);
    ahead += ahead_step;
    int8x16_t rows[kRows];
#pragma GCC unroll 2
    for (int i = 0; i < kRows; ++i) rows[i] = vld1q_s8(x + i * stride + k);
#pragma GCC unroll 8
    for (int j = 0; j < Tile::kColumns; ++j, columns += kKGroup) {
      const int8x16_t column = vld1q_s8(columns);
#pragma GCC unroll 2
      for (int i = 0; i < kRows; ++i) partial[i][j] = add_products_of_bytes(partial[i][j], rows[i], column);
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < Tile::kVectors; ++j) {
      const int32x4_t* four = partial[i] + j * Vec::kLanes;
      sums[i][j] = {vpaddq_s32(vpaddq_s32(four[0], four[1]), vpaddq_s32(four[2], four[3]))};
    }
  }
  restore_offset<kKGroup>(sums, x, panel, depth);
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
