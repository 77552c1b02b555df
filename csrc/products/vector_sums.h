// The sums of a product whose vectors are multiplied by one broadcast value of a row at a time, in float32: x86 and
// scalar. A panel's elements are whatever load() widens to a Vec.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "simd/bfloat16.h"
#include "simd/half.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// Two vectors wide, and as tall as the registers allow beside two weights and one broadcast. AVX-512, 14 x 32: 28 sums
// + 3 are 31 of 32 registers, and 28 FMAs ask for 16 loads, within what two load ports give to two FMA ports. AVX2, 6 x
// 16: 12 sums + 3 are 15 of 16, and 12 FMAs ask for 8 loads.
struct Tile {
  static constexpr int kVectors = 2;
  static constexpr int kRows = (Vec::kRegisters - kVectors - 1) / kVectors;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr bool kGeluInMemory = false;
};

// Rows are multiplied where they lie.
constexpr auto kLeftStride = nullptr;
constexpr auto kPackLeft = nullptr;

// Panels hold values only, k after k.
constexpr int kKGroup = 1;
constexpr int kTailBytes = 0;
constexpr bool kQuantized = false;

// k between two looks ahead.
constexpr int kStep = 1;

// GCC 12 gathers a step's loads ahead of its multiplications, which costs AVX2 about one per cent (bench/NOTES.md, Zen
// 3). Volatile statements run in the order written here; AVX-512 has the registers not to care.
#if defined(__AVX2__) && !defined(__AVX512F__)
inline __attribute__((always_inline)) Vec load_in_order(const float* p) {
  Vec x;
  asm volatile("vmovups %1, %0" : "=x"(x.v) : "m"(*reinterpret_cast<const __m256_u*>(p)));
  return x;
}
inline __attribute__((always_inline)) Vec load_in_order(const Half* p) {
  Vec x;
  asm volatile("vcvtph2ps %1, %0" : "=x"(x.v) : "m"(*reinterpret_cast<const __m128i_u*>(p)));
  return x;
}
inline __attribute__((always_inline)) Vec load_in_order(const BFloat16* p) {
  Vec x;
  asm volatile("vpmovzxwd %1, %0" : "=x"(x.v) : "m"(*reinterpret_cast<const __m128i_u*>(p)));
  asm volatile("vpslld $16, %0, %0" : "+x"(x.v));
  return x;
}
inline __attribute__((always_inline)) Vec broadcast_in_order(const float* p) {
  Vec x;
  asm volatile("vbroadcastss %1, %0" : "=x"(x.v) : "m"(*p));
  return x;
}
inline __attribute__((always_inline)) Vec fma_in_order(Vec a, Vec b, Vec sum) {
  asm volatile("vfmadd231ps %2, %1, %0" : "+x"(sum.v) : "x"(a.v), "x"(b.v));
  return sum;
}
#else
template <class Element>
inline Vec load_in_order(const Element* p) {
  return load(p);
}
inline Vec broadcast_in_order(const float* p) { return broadcast(*p); }
inline Vec fma_in_order(Vec a, Vec b, Vec sum) { return fma(a, b, sum); }
#endif

template <int kRows, class Element>
inline __attribute__((always_inline)) void add_products(Vec (&sums)[kRows][Tile::kVectors], const float* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  // Rows are reached from every third one (base, base + stride, base + 2 * stride are x86 addressing modes), so the 14
  // rows of the tallest tile cost 5 pointers and one stride, not 14 pointers.
  constexpr int kBases = (kRows + 2) / 3;
  const float* base[kBases];
#pragma GCC unroll 8
  for (int b = 0; b < kBases; ++b) base[b] = x + 3 * b * stride;

  for (int64_t k = depth; k > 0; --k) {
    // All of what a k takes: where one tile covers the rows, its share of the next panel is that much.
#pragma GCC unroll 2
    for (size_t line = 0; line < Tile::kColumns * sizeof(Element); line += 64) __builtin_prefetch(ahead + line, 0, 3);
    ahead += ahead_step;
    Vec weights[Tile::kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < Tile::kVectors; ++j) weights[j] = load_in_order(panel + j * Vec::kLanes);
    panel += Tile::kColumns;
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Vec value = broadcast_in_order(base[i / 3] + (i % 3) * stride);
#pragma GCC unroll 8
      for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = fma_in_order(value, weights[j], sums[i][j]);
    }
#pragma GCC unroll 8
    for (int b = 0; b < kBases; ++b) ++base[b];
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
