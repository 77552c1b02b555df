// int8 on NEON with Armv8.2's dot products (asimddp): SDOT multiplies and adds four k of a column at a time. The tile
// and its order are float32_neon's, with four bytes where that has a float.
#pragma once

#include "products/int8_neon_rows.h"
#include "products/neon_out_of_order.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

struct Tile {
  static constexpr int kRows = 8;
  static constexpr int kVectors = 2;
  static constexpr int kColumns = kPanelColumns;
  static constexpr bool kGeluInMemory = true;
};
constexpr int kKGroup = 4;
constexpr int kStep = 4 * kKGroup;

constexpr auto kLeftStride = QuantizedLeft<PreparedBytes<kKGroup>>::stride;
constexpr auto kPackLeft = QuantizedLeft<PreparedBytes<kKGroup>>::pack;

inline void store_four(Element* at, const Ints (&four)[4]) { vst1q_s8(at, vreinterpretq_s8_s32(join(four).v)); }
inline void finish_panel(Element* panel, int64_t depth) { add_up_columns<kKGroup>(panel, depth); }

template <int kLane>
inline __attribute__((always_inline)) Ints fmla_lane(Ints sum, Vec weight, Vec row) {
  asm volatile("sdot %0.4s, %1.16b, %2.4b[%3]" : "+w"(sum.v) : "w"(weight.v), "w"(row.v), "i"(kLane));
  return sum;
}

inline Multiplied fma(Multiplied sum, Multiplied x, Multiplied y) {
  asm volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum.v) : "w"(x.v), "w"(y.v));
  return sum;
}

template <int kRows>
inline __attribute__((always_inline)) void add_products(Ints (&sums)[kRows][Tile::kVectors], const Left* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  asm volatile("" ::: "memory");  // the compiler does not see what the loop reads: let it be written by here
  const float* rows[kRows];       // lanes of four bytes
  const auto* weights = reinterpret_cast<const float*>(panel);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    rows[i] = reinterpret_cast<const float*>(x + i * stride);
    for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = zero_ints();
  }
  OutOfOrder::run(sums, rows, weights, depth / kStep, ahead, ahead_step);
  for (int64_t k = depth / kStep * kStep; k < depth; k += kKGroup) {
    const VecPair pair = load_next_pair(weights);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Vec lane = {vld1q_dup_f32(rows[i]++)};
      for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = fmla_lane<0>(sums[i][j], pair.v[j], lane);
    }
  }
  asm volatile("" ::: "memory");
  restore_offset<kKGroup>(sums, x, panel, depth);
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
