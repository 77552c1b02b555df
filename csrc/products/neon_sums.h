// The sums of a product on NEON, in float32: steps of 4 k for a tile of kRows x 8, one asm statement per instruction.
//
// Not intrinsics, because with them GCC 12 copies accumulators from register to register inside the loop (8 moves for
// 64 FMLAs at 8 x 8), on the very pipes that multiply. The statements are volatile, so they run in the order written
// here; which registers they use is the compiler's choice. `make arm-analysis` holds the result against the FMA pipes
// of several cores. SQUEEZEBERT_NEON_ORDER says which of the two orders a product takes.
#pragma once

#if !defined(SQUEEZEBERT_NEON_ORDER)  // an editor that opens this header by itself
#define SQUEEZEBERT_NEON_ORDER OutOfOrder
#endif

#include <stdint.h>

#include "products/neon_out_of_order.h"
#include "simd/hot_loop.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// 8 x 8 in steps of 4 k: FMLA takes its left factor from a lane, so 4 values of a row cost one load. 16 accumulators +
// 8 weights + a few rows stay within 32 registers, and 64 FMLAs ask for 8 row loads and 4 paired weight loads.
struct Tile {
  static constexpr int kRows = 8;
  static constexpr int kVectors = 2;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr bool kGeluInMemory = true;
};
constexpr int kStep = 4;

// Rows are multiplied where they lie.
using Left = float;
constexpr auto kLeftStride = nullptr;
constexpr auto kPackLeft = nullptr;

// Panels hold values only, k after k.
constexpr int kKGroup = 1;
constexpr int kTailBytes = 0;
constexpr bool kQuantized = false;

using Multiplied = Vec;  // what `peak` multiplies
inline void store_one(float* p, float x) { *p = x; }

// For cores that do not (A53, A55): these multiply one vector a cycle, and beside it they issue a load of up to 64
// bits, but not one of 128. So rows come two k at a time, and a weight in two halves; every load stands alone between
// two FMLAs, a dozen or more before its first use. Weights are loaded one k ahead, a row as soon as both its lanes are
// used up; the last k, which must not read past the rows and the panel, are written out behind the loop.
struct InOrder {
  template <int kFloats>
  static __attribute__((always_inline)) Vec load_low(const float* p) {
    float32x4_t x;
    asm volatile("ldr %d0, [%1, %2]" : "=w"(x) : "r"(p), "i"(kFloats * sizeof(float)));
    return {x};
  }
  static __attribute__((always_inline)) Vec load_row_pair(const float* row, ptrdiff_t k_bytes) {
    float32x4_t x;
    asm volatile("ldr %d0, [%1, %2]" : "=w"(x) : "r"(row), "r"(k_bytes));
    return {x};
  }
  template <int kFloats>
  static __attribute__((always_inline)) uint64_t load_high(const float* p) {
    uint64_t high;
    asm volatile("ldr %0, [%1, %2]" : "=r"(high) : "r"(p), "i"((kFloats + 2) * sizeof(float)));
    return high;
  }
  static __attribute__((always_inline)) Vec join(Vec low, uint64_t high) {
    asm volatile("ins %0.d[1], %1" : "+w"(low.v) : "r"(high));
    return low;
  }

  // One k, of which the weights are here, and one of its rows' two lanes; meanwhile the next k's weights, at kNext
  // floats.
  template <int kLane, int kNext, bool kLoad, int kRows>
  static __attribute__((always_inline)) void lane(Vec (&sums)[kRows][2], Vec (&row)[kRows],
                                                  const float* const (&rows)[kRows], ptrdiff_t k_bytes,
                                                  VecPair& weights, const float* panel) {
    VecPair next = weights;
    uint64_t high[2] = {};
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      sums[i][0] = fmla_lane<kLane>(sums[i][0], weights.v[0], row[i]);
      if constexpr (kLoad || kLane == 0) {
        if (i == 0) next.v[0] = load_low<kNext>(panel);
        if (i == kRows / 8) high[0] = load_high<kNext>(panel);
        if (i == kRows / 4) next.v[1] = load_low<kNext + 4>(panel);
        if (i == kRows * 3 / 8) high[1] = load_high<kNext + 4>(panel);
        if (i == kRows / 2) next.v[0] = join(next.v[0], high[0]);
        if (i == kRows * 5 / 8) next.v[1] = join(next.v[1], high[1]);
      }
      sums[i][1] = fmla_lane<kLane>(sums[i][1], weights.v[1], row[i]);
      if constexpr (kLoad && kLane == 1) row[i] = load_row_pair(rows[i], k_bytes);
    }
    weights = next;
  }

  template <int kRows>
  static __attribute__((always_inline)) void run(Vec (&sums)[kRows][2], const float* (&rows)[kRows],
                                                 const float*& panel, int64_t steps, const char* ahead,
                                                 ptrdiff_t ahead_step) {
    if (steps == 0) return;
    VecPair weights = {{join(load_low<0>(panel), load_high<0>(panel)), join(load_low<4>(panel), load_high<4>(panel))}};
    Vec row[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) row[i] = load_row_pair(rows[i], 0);
    ptrdiff_t k_bytes = 8;  // of the row pair to load next
    for (; steps > 1; --steps) {
      sums[0][0] = SQUEEZEBERT_HOT_LOOP("micro-kernel")(sums[0][0]);
      __builtin_prefetch(ahead, 0, 3);
      ahead += ahead_step;
      lane<0, 8, true>(sums, row, rows, k_bytes, weights, panel);
      lane<1, 16, true>(sums, row, rows, k_bytes, weights, panel);
      k_bytes += 8;
      lane<0, 24, true>(sums, row, rows, k_bytes, weights, panel);
      lane<1, 32, true>(sums, row, rows, k_bytes, weights, panel);
      k_bytes += 8;
      panel += 32;
    }
    lane<0, 8, true>(sums, row, rows, k_bytes, weights, panel);
    lane<1, 16, true>(sums, row, rows, k_bytes, weights, panel);
    lane<0, 24, true>(sums, row, rows, k_bytes, weights, panel);
    lane<1, 32, false>(sums, row, rows, k_bytes, weights, panel);
    panel += 32;
  }
};

template <int kRows, class Element>
inline __attribute__((always_inline)) void add_products(Vec (&sums)[kRows][Tile::kVectors], const float* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  asm volatile("" ::: "memory");  // the compiler does not see what the loop reads: let it be written by here
  const float* rows[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) rows[i] = x + i * stride;
  SQUEEZEBERT_NEON_ORDER::run(sums, rows, panel, depth / kStep, ahead, ahead_step);
  asm volatile("" ::: "memory");
  for (int64_t k = depth / kStep * kStep; k < depth; ++k) {
    for (int i = 0; i < kRows; ++i) {
      const Vec value = broadcast(x[i * stride + k]);
      for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = fma(value, load(panel + j * Vec::kLanes), sums[i][j]);
    }
    panel += Tile::kColumns;
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
