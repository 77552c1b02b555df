// NEON with float16 panels on cores that multiply float16 (Armv8.2's asimdhp): eight products an instruction. Rows and
// results are float32 in memory; a row is rounded to float16 as it is loaded. Included once, by isa/neon_hp.cc.
//
// Sums of kChunk products are float16, sums of those float32. SqueezeBERT's twelve layers (random weights, 64 tokens)
// then differ from float32 by 0.27 % in the root mean square; with chunks of 32 by 0.14 %, for 10 % more instructions;
// of 192, the depth of a group, by 0.35 %. The rounding of the weights alone makes 0.03 %.
#pragma once

#include "simd/hot_loop.h"
#include "simd/neon_half.h"

namespace squeezebert::SQUEEZEBERT_ISA {

// 4 x 32, 8 k at a time: 16 accumulators + 4 rows + 4 weights of 32 registers. Wide rather than tall, because rows are
// rounded anew for every panel: 8 conversions beside 128 FMLAs, where 8 x 16 has 16 and is a tenth slower on paper. The
// float32 sums, 32 registers' worth, are in memory and visited once a chunk.
struct Tile {
  static constexpr int kRows = 4;
  static constexpr int kVectors = 8;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr int kDepth = 4;
  static constexpr bool kOwnSteps = true;
};
constexpr int64_t kChunk = 64;
constexpr int kProducts = Tile::kVectors / 2;  // vectors of float16 in a row of the tile

// Eight float16.
struct Product {
  static constexpr int kLanes = 8;
  float16x8_t v;
};

inline void splat(Product& x, float value) {
  const float16x4_t half = vcvt_f16_f32(vdupq_n_f32(value));
  x.v = vcombine_f16(half, half);
}
inline Product fma(Product a, Product b, Product c) { return {vfmaq_f16(c.v, a.v, b.v)}; }
inline Product operator+(Product a, Product b) { return {vaddq_f16(a.v, b.v)}; }
inline Vec low(Product x) { return {vcvt_f32_f16(vget_low_f16(x.v))}; }
inline Vec high(Product x) { return {vcvt_high_f32_f16(x.v)}; }
inline float reduce_add(Product x) { return reduce_add(low(x) + high(x)); }

// An asm statement for the reason given in neon_steps.h. The row is in registers 0 to 15: only those have float16 lanes
// that an FMLA takes.
template <int kLane>
inline __attribute__((always_inline)) Product fmla_lane(Product sum, Product weight, Product row) {
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

// kDepth values of a row, rounded.
template <int kDepth>
inline __attribute__((always_inline)) Product load_rounded(const float*& p) {
  static_assert(kDepth == 1 || kDepth == 4 || kDepth == 8);
  float32x4_t first, second;
  if constexpr (kDepth == 8) {
    load_next_pair(p, first, second);
    return {vcvt_high_f16_f32(vcvt_f16_f32(first), second)};
  }
  const float* next = p;
  if constexpr (kDepth == 4) asm volatile("ldr %q0, [%1], #16" : "=w"(first), "+r"(next));
  if constexpr (kDepth == 1) asm volatile("ldr %s0, [%1], #4" : "=w"(first), "+r"(next));
  p = next;
  const float16x4_t rounded = vcvt_f16_f32(first);
  return {vcombine_f16(rounded, rounded)};
}

template <int kDepth, int kLane = 0, int kRows>
inline __attribute__((always_inline)) void lanes(Product (&products)[kRows][kProducts], const Product (&row)[kRows],
                                                 const Half*& panel) {
  Product weights[kProducts];
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
inline __attribute__((always_inline)) void multiply_rows(Product (&products)[kRows][kProducts],
                                                         const float* (&rows)[kRows], const Half*& panel) {
  Product row[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) row[i] = load_rounded<kDepth>(rows[i]);
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

// Returns the k that it multiplied: all of them, so that where a sum ends does not show in how its last terms were
// added (masked keys, whose factors are 0, leave attention's bits as they are).
template <int kRows>
inline __attribute__((always_inline)) int64_t multiply_steps(Vec (&sums)[kRows][Tile::kVectors], const float* x,
                                                             ptrdiff_t stride, const Half*& panel, int64_t depth,
                                                             const char* ahead, ptrdiff_t ahead_step) {
  asm volatile("" ::: "memory");  // the compiler does not see what the loop reads: let it be written by here
  const float* rows[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) rows[i] = x + i * stride;
  for (int64_t left = depth; left > 0; left -= kChunk) {
    const int64_t here = left < kChunk ? left : kChunk;
    Product products[kRows][kProducts];
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
  return depth;
}

}  // namespace squeezebert::SQUEEZEBERT_ISA
