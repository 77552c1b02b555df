// The order in which a tile of kRows x 8 is multiplied on NEON cores that reorder instructions, in steps of four lanes
// of a row: FMLA by a lane of one float, or SDOT by a lane of four bytes. One asm statement per instruction
// (products/neon_sums.h says why).
#pragma once

#include <stdint.h>

#include "simd/bfloat16.h"
#include "simd/half.h"
#include "simd/hot_loop.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

template <int kLane>
inline __attribute__((always_inline)) Vec fmla_lane(Vec sum, Vec weight, Vec row) {
  if constexpr (kLane == 0) asm volatile("fmla %0.4s, %1.4s, %2.s[0]" : "+w"(sum.v) : "w"(weight.v), "w"(row.v));
  if constexpr (kLane == 1) asm volatile("fmla %0.4s, %1.4s, %2.s[1]" : "+w"(sum.v) : "w"(weight.v), "w"(row.v));
  if constexpr (kLane == 2) asm volatile("fmla %0.4s, %1.4s, %2.s[2]" : "+w"(sum.v) : "w"(weight.v), "w"(row.v));
  if constexpr (kLane == 3) asm volatile("fmla %0.4s, %1.4s, %2.s[3]" : "+w"(sum.v) : "w"(weight.v), "w"(row.v));
  return sum;
}

inline __attribute__((always_inline)) Vec load_next(const float*& p) {
  float32x4_t x;
  const float* next = p;
  asm volatile("ldr %q0, [%1], #16" : "=w"(x), "+r"(next));
  p = next;
  return {x};
}

struct VecPair {
  Vec v[2];
};
inline __attribute__((always_inline)) VecPair load_next_pair(const float*& p) {
  float32x4_t x, y;
  const float* next = p;
  asm volatile("ldp %q0, %q1, [%2], #32" : "=w"(x), "=w"(y), "+r"(next));
  p = next;
  return {{{x}, {y}}};
}

// 16-bit panels, widened.
inline __attribute__((always_inline)) VecPair load_next_pair(const Half*& p) {
  uint16x4_t x, y;
  const Half* next = p;
  asm volatile("ldp %d0, %d1, [%2], #16" : "=w"(x), "=w"(y), "+r"(next));
  p = next;
  return {{{vcvt_f32_f16(vreinterpret_f16_u16(x))}, {vcvt_f32_f16(vreinterpret_f16_u16(y))}}};
}

inline __attribute__((always_inline)) VecPair load_next_pair(const BFloat16*& p) {
  uint16x8_t both;
  Vec x, y;
  const BFloat16* next = p;
  asm volatile("ldr %q0, [%1], #16" : "=w"(both), "+r"(next));
  asm("shll %0.4s, %1.4h, #16" : "=w"(x.v) : "w"(both));
  asm("shll2 %0.4s, %1.8h, #16" : "=w"(y.v) : "w"(both));
  p = next;
  return {{x, y}};
}

// For cores that reorder: a row is loaded just ahead of its first use; the loads run ahead by themselves.
struct OutOfOrder {
  // The lanes of a step from kLane on; load_row(i) is called ahead of the first use of row[i], which it sets.
  template <int kLane, int kRows, class Sum, class Element, class LoadRow>
  static __attribute__((always_inline)) void lanes(Sum (&sums)[kRows][2], const Vec (&row)[kRows],
                                                   const Element*& panel, const LoadRow& load_row) {
    const VecPair weights = load_next_pair(panel);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      if constexpr (kLane == 0) load_row(i);
      sums[i][0] = fmla_lane<kLane>(sums[i][0], weights.v[0], row[i]);
      sums[i][1] = fmla_lane<kLane>(sums[i][1], weights.v[1], row[i]);
    }
    if constexpr (kLane < 3) lanes<kLane + 1>(sums, row, panel, load_row);
  }

  template <int kRows, class Sum, class Element>
  static __attribute__((always_inline)) void step(Sum (&sums)[kRows][2], const float* (&rows)[kRows],
                                                  const Element*& panel) {
    Vec row[kRows];
    lanes<0>(sums, row, panel, [&](int i) __attribute__((always_inline)) { row[i] = load_next(rows[i]); });
  }

  // A load fetches both steps' values of a row, for as many rows as there are registers left to keep the second's in.
  template <int kRows, class Sum, class Element>
  static __attribute__((always_inline)) void two_steps(Sum (&sums)[kRows][2], const float* (&rows)[kRows],
                                                       const Element*& panel) {
    constexpr int kLeft = 32 - (2 * kRows + kRows + 2);  // registers beside sums, rows and weights
    Vec row[kRows], next_row[kRows];
    lanes<0>(sums, row, panel, [&](int i) __attribute__((always_inline)) {
      if (i < kLeft) {
        const VecPair both = load_next_pair(rows[i]);
        row[i] = both.v[0];
        next_row[i] = both.v[1];
      } else {
        row[i] = load_next(rows[i]);
      }
    });
    lanes<0>(sums, next_row, panel, [&](int i) __attribute__((always_inline)) {
      if (i >= kLeft) next_row[i] = load_next(rows[i]);
    });
  }

  template <int kRows, class Sum, class Element>
  static __attribute__((always_inline)) void run(Sum (&sums)[kRows][2], const float* (&rows)[kRows],
                                                 const Element*& panel, int64_t steps, const char* ahead,
                                                 ptrdiff_t ahead_step) {
    // Four steps a turn: all but loads and multiplications are then 5 instructions of 297.
    for (int64_t turns = steps / 4; turns > 0; --turns) {
      sums[0][0] = SQUEEZEBERT_HOT_LOOP("micro-kernel")(sums[0][0]);
      two_steps(sums, rows, panel);
      __builtin_prefetch(ahead, 0, 3);
      __builtin_prefetch(ahead + 2 * ahead_step, 0, 3);
      ahead += 4 * ahead_step;
      two_steps(sums, rows, panel);
    }
    for (int64_t left = steps % 4; left > 0; --left) step(sums, rows, panel);
  }
};

}  // namespace squeezebert::SQUEEZEBERT_UNIT
