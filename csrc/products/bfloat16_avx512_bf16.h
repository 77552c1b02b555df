// bfloat16 on AVX-512 with AVX512-BF16: VDPBF16PS multiplies and adds two k of a column at a time. Rows are rounded to
// bfloat16 once for all panels, by pack_left; sums and results are float32.
//
// The instruction takes denormals for zeros, makes zeros of results that are, and rounds the two products and their sum
// in its own way, so results do not have the bits of the products that widen. Zen 4 and Zen 5 start as many of it as
// FMAs, Sapphire Rapids a quarter as many (cpufp: 115 GOP/s beside 230): isa/list.inc chooses it on the former only.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "products/product.h"
#include "simd/row.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// As float32's: 28 sums + 2 weights + a broadcast of 32 registers.
struct Tile {
  static constexpr int kRows = 14;
  static constexpr int kVectors = 2;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr bool kGeluInMemory = false;
};
constexpr int kStep = 2;

using Element = BFloat16;
using Left = BFloat16;
constexpr int kKGroup = 2;
constexpr int kTailBytes = 0;
constexpr bool kQuantized = false;

// Rows an odd number of cache lines apart, so that those of a block do not all fall on the same cache sets.
inline int64_t left_stride(int64_t depth) { return ((depth * 2 + 63) / 64 | 1) * 64; }
constexpr auto kLeftStride = left_stride;

// 16 values an instruction, zeros past the end of a row. (VCVTNE2PS2BF16 does 32, but in Bochs the first 16 twice.)
inline void pack_left(const LeftRows& a, void* left) {
  char* to = static_cast<char*>(left);
  for (int64_t r = 0; r < a.rows; ++r, to += left_stride(a.depth)) {
    const float* from = a.values + r * a.stride;
    for_each_vector(a.depth, [&](int64_t k, int count) {
      const __m256bh rounded = _mm512_cvtneps_pbh(load_some(from + k, count).v);
      memcpy(to + k * static_cast<int64_t>(sizeof(Left)), &rounded, sizeof rounded);
    });
  }
}
constexpr auto kPackLeft = pack_left;

// Two pairs of k, one behind the other.
inline void store_four(Element* at, const Vec (&four)[4]) {
  for (int pair = 0; pair < 2; ++pair) {
    const Ints both[2] = {rounded_to_bfloat16(four[2 * pair]), rounded_to_bfloat16(four[2 * pair + 1])};
    _mm512_storeu_si512(at + pair * 2 * Tile::kColumns, join(both).v);
  }
}

// Two products a lane: what `peak` multiplies.
struct Multiplied {
  static constexpr int kLanes = 2 * Vec::kLanes;
  __m512 v;
};

// An asm statement because GCC 12 copies accumulators around the intrinsic, which halves the rate.
inline __attribute__((always_inline)) Vec add_pairs(Vec sum, __m512i x, __m512i y) {
  asm volatile("vdpbf16ps %2, %1, %0" : "+v"(sum.v) : "v"(x), "v"(y));
  return sum;
}
inline void splat(Multiplied& x, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  x.v = _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int32_t>(bits >> 16 | (bits & 0xffff0000))));
}
inline Multiplied fma(Multiplied sum, Multiplied x, Multiplied y) {
  return {add_pairs({sum.v}, _mm512_castps_si512(x.v), _mm512_castps_si512(y.v)).v};
}
inline Multiplied operator+(Multiplied a, Multiplied b) { return {_mm512_add_ps(a.v, b.v)}; }
inline float reduce_add(Multiplied x) { return reduce_add(Vec{x.v}); }

template <int kRows>
inline __attribute__((always_inline)) void add_products(Vec (&sums)[kRows][Tile::kVectors], const Left* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  constexpr int kBases = (kRows + 2) / 3;  // as in vector_sums.h
  const Left* base[kBases];
#pragma GCC unroll 8
  for (int b = 0; b < kBases; ++b) base[b] = x + 3 * b * stride;
  for (int64_t k = depth; k > 0; k -= kKGroup) {
#pragma GCC unroll 2
    for (int line = 0; line < 2; ++line) __builtin_prefetch(ahead + 64 * line, 0, 3);
    ahead += ahead_step;
    __m512i weights[Tile::kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < Tile::kVectors; ++j) weights[j] = _mm512_loadu_si512(panel + j * kKGroup * Vec::kLanes);
    panel += kKGroup * Tile::kColumns;
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      int32_t pair;
      memcpy(&pair, base[i / 3] + (i % 3) * stride, sizeof pair);
      const __m512i values = _mm512_set1_epi32(pair);
#pragma GCC unroll 2
      for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = add_pairs(sums[i][j], values, weights[j]);
    }
#pragma GCC unroll 8
    for (int b = 0; b < kBases; ++b) base[b] += kKGroup;
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
