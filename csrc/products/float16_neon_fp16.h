// float16 on NEON with float16 arithmetic (Armv8.2's asimdhp): eight products an instruction. Rows are rounded to
// float16 once for all panels, by pack_left; results are float32.
//
// Sums of kChunk products are float16, sums of those float32. SqueezeBERT's twelve layers (random weights, 64 tokens)
// then differ from float32 by 0.27 % in the root mean square; with chunks of 32 by 0.14 %, for 10 % more instructions;
// of 192, the depth of a group, by 0.35 %. The rounding of the weights alone makes 0.03 %.
#pragma once

#include "products/product.h"
#include "simd/half.h"
#include "simd/hot_loop.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// 4 x 32, 8 k at a time: 16 accumulators + 4 rows + 4 weights of 32 registers. The float32 sums, 32 registers' worth,
// are in memory and visited once a chunk.
struct Tile {
  static constexpr int kRows = 4;
  static constexpr int kVectors = 8;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr bool kGeluInMemory = true;
};
constexpr int kStep = 4;
constexpr int64_t kChunk = 64;
constexpr int kProducts = Tile::kVectors / 2;  // vectors of float16 in a row of the tile

// Eight float16.
struct Multiplied {
  static constexpr int kLanes = 8;
  float16x8_t v;
};
using Element = Half;
using Left = Half;

// Rows an odd number of cache lines apart, so that those of a block do not all fall on the same cache sets.
inline int64_t left_stride(int64_t depth) { return ((depth * 2 + 63) / 64 | 1) * 64; }
constexpr auto kLeftStride = left_stride;

inline void pack_left(const LeftRows& a, void* left) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* from = a.values + r * a.stride;
    Half* to = static_cast<Half*>(left) + r * left_stride(a.depth) / static_cast<int64_t>(sizeof(Half));
    int64_t k = 0;
#pragma GCC unroll 4
    for (; k + 8 <= a.depth; k += 8) {
      const float16x8_t rounded = vcvt_high_f16_f32(vcvt_f16_f32(vld1q_f32(from + k)), vld1q_f32(from + k + 4));
      vst1q_u16(&to[k].bits, vreinterpretq_u16_f16(rounded));
    }
    for (; k < a.depth; ++k) store_one(to + k, from[k]);
  }
}
constexpr auto kPackLeft = pack_left;

// Panels hold values only, k after k.
constexpr int kKGroup = 1;
constexpr int kTailBytes = 0;
constexpr bool kQuantized = false;

inline void splat(Multiplied& x, float value) {
  const float16x4_t half = vcvt_f16_f32(vdupq_n_f32(value));
  x.v = vcombine_f16(half, half);
}
inline Multiplied fma(Multiplied a, Multiplied b, Multiplied c) { return {vfmaq_f16(c.v, a.v, b.v)}; }
inline Multiplied operator+(Multiplied a, Multiplied b) { return {vaddq_f16(a.v, b.v)}; }
inline Vec low(Multiplied x) { return {vcvt_f32_f16(vget_low_f16(x.v))}; }
inline Vec high(Multiplied x) { return {vcvt_high_f32_f16(x.v)}; }
inline float reduce_add(Multiplied x) { return reduce_add(low(x) + high(x)); }

// An asm statement for the reason given in neon_sums.h. The row is in registers 0 to 15: only those have float16 lanes
// that an FMLA takes.
template <int kLane>
inline __attribute__((always_inline)) Multiplied fmla_lane(Multiplied sum, Multiplied weight, Multiplied row) {
  asm volatile("fmla %0.8h, %1.8h, %2.h[%3]" : "+w"(sum.v) : "w"(weight.v), "x"(row.v), "i"(kLane));
  return sum;
}

// 32 bytes, by LDP; the compiler makes two LDRs of them.
template <class Vector, class Pointer>
inline __attribute__((always_inline)) void load_next_pair(const Pointer*& p, Vector& first, Vector& second) {
  Vector x, y;
  const Pointer* next = p;
  asm volatile("ldp %q0, %q1, [%2], #32" : "=w"(x), "=w"(y), "+r"(next));
  first = x;
  second = y;
  p = next;
}

// kDepth values of a row.
template <int kDepth>
inline __attribute__((always_inline)) Multiplied load_row(const Half*& p) {
  static_assert(kDepth == 1 || kDepth == 4 || kDepth == 8);
  float16x8_t row;
  const Half* next = p;
  if constexpr (kDepth == 8) asm volatile("ldr %q0, [%1], #16" : "=w"(row), "+r"(next));
  if constexpr (kDepth == 4) asm volatile("ldr %d0, [%1], #8" : "=w"(row), "+r"(next));
  if constexpr (kDepth == 1) asm volatile("ldr %h0, [%1], #2" : "=w"(row), "+r"(next));
  p = next;
  return {row};
}

template <int kDepth, int kLane = 0, int kRows>
inline __attribute__((always_inline)) void lanes(Multiplied (&products)[kRows][kProducts],
                                                 const Multiplied (&row)[kRows], const Half*& panel) {
  Multiplied weights[kProducts];
#pragma GCC unroll 8
  for (int j = 0; j < kProducts; j += 2) load_next_pair(panel, weights[j].v, weights[j + 1].v);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kProducts; ++j) products[i][j] = fmla_lane<kLane>(products[i][j], weights[j], row[i]);
  }
  if constexpr (kLane + 1 < kDepth) lanes<kDepth, kLane + 1>(products, row, panel);
}

template <int kDepth, int kRows>
inline __attribute__((always_inline)) void multiply_rows(Multiplied (&products)[kRows][kProducts],
                                                         const Half* (&rows)[kRows], const Half*& panel) {
  Multiplied row[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) row[i] = load_row<kDepth>(rows[i]);
  lanes<kDepth>(products, row, panel);
}

template <int kRows, class Body>
inline __attribute__((always_inline)) void for_each_product(const Body& body) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kProducts; ++j) body(i, j);
  }
}

// The last k are multiplied as all others, so that where a sum ends does not show in how its last terms were added
// (masked keys, whose factors are 0, leave attention's bits as they are).
template <int kRows>
inline __attribute__((always_inline)) void add_products(Vec (&sums)[kRows][Tile::kVectors], const Half* x,
                                                        ptrdiff_t stride, const Half* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  asm volatile("" ::: "memory");  // the compiler does not see what the loop reads: let it be written by here
  const Half* rows[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) rows[i] = x + i * stride;
  for (int64_t left = depth; left > 0; left -= kChunk) {
    const int64_t here = left < kChunk ? left : kChunk;
    Multiplied products[kRows][kProducts];
    for_each_product<kRows>([&](int i, int j) { splat(products[i][j], 0.0f); });
    for (int64_t turns = here / 8; turns > 0; --turns) {
      products[0][0] = SQUEEZEBERT_HOT_LOOP("micro-kernel")(products[0][0]);
      __builtin_prefetch(ahead, 0, 3);
      ahead += 2 * ahead_step;
      multiply_rows<8>(products, rows, panel);
    }
    if (here % 8 >= 4) multiply_rows<4>(products, rows, panel);
    for (int64_t k = here % 4; k > 0; --k) multiply_rows<1>(products, rows, panel);
    for_each_product<kRows>([&](int i, int j) {
      sums[i][2 * j] = sums[i][2 * j] + low(products[i][j]);
      sums[i][2 * j + 1] = sums[i][2 * j + 1] + high(products[i][j]);
    });
  }
  asm volatile("" ::: "memory");
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
