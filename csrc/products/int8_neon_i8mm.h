// int8 on NEON with Armv8.6's products of matrices (i8mm): SMMLA, 2 x 2 sums of 8 products each.
#pragma once

#include "products/int8_neon_rows.h"
#include "products/neon_blocks.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

constexpr int kKGroup = 8;
constexpr int kStep = 16;

constexpr auto kLeftStride = QuantizedLeft<PreparedBytes<kKGroup>>::stride;
inline void pack_left(const LeftRows& a, void* left) {
  using Rows = QuantizedLeft<PreparedBytes<kKGroup>>;
  Rows::pack(a, left);
  pair_rows(static_cast<char*>(left), a.rows, Rows::stride(a.depth), Rows::values_bytes(a.depth));
}
constexpr auto kPackLeft = pack_left;

// Four k of four columns, 8 bytes apart.
inline void store_four(Element* at, const Ints (&four)[4]) {
  int32_t columns[4];
  store(columns, join(four));
  for (int j = 0; j < 4; ++j) memcpy(at + j * kKGroup, columns + j, sizeof columns[j]);
}
inline void finish_panel(Element* panel, int64_t depth) { add_up_columns<kKGroup>(panel, depth); }

inline __attribute__((always_inline)) Ints multiply_block(Ints block, int8x16_t rows, int8x16_t columns) {
  asm volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(block.v) : "w"(rows), "w"(columns));
  return block;
}

inline Multiplied fma(Multiplied sum, Multiplied x, Multiplied y) {
  asm volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum.v) : "w"(x.v), "w"(y.v));
  return sum;
}

template <int kRows>
inline __attribute__((always_inline)) void add_products(Ints (&sums)[kRows][Tile::kVectors], const Left* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
#pragma GCC unroll 10
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = zero_ints();
  }
  Blocks::run<kRows>(sums, x, stride, panel, (depth + kKGroup - 1) / kKGroup * kKGroup, ahead, ahead_step);
  restore_offset<kKGroup>(sums, x, panel, depth);
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
