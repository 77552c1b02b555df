// int8 on x86 without VNNI: 16-bit factors, multiplied and added in pairs by VPMADDWD, which cannot saturate as the
// instruction for bytes, VPMADDUBSW, does. Panels hold bytes, widened as they are loaded; rows are prepared as 16 bits.
#pragma once

#include "products/quantized.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// Two vectors wide, and as tall as the registers allow beside two weights, a broadcast and a product: 6 x 16, or 14 x
// 32 with AVX-512. A row's step is a broadcast, two VPMADDWD and two VPADDD for four multiply-adds a lane. Zen 3 has
// two pipes for the first and four for both: 6 x 16 x 2 in 6.5 cycles, float32's would take 12.
struct Tile {
  static constexpr int kVectors = 2;
  static constexpr int kRows = (Vec::kRegisters - kVectors - 2) / kVectors;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr bool kGeluInMemory = false;
};
constexpr int kStep = 2;

using Element = int8_t;
using Left = int16_t;
constexpr int kKGroup = 2;
constexpr int kTailBytes = Tile::kColumns * sizeof(float);
constexpr bool kQuantized = true;

struct Prepared {
  using Value = Left;
  static constexpr int kKGroup = SQUEEZEBERT_UNIT::kKGroup;
  static int32_t offset(bool) { return 0; }
  template <class Row>
  static void store(Left* to, const Row& row, int64_t depth, float inverse, int32_t) {
    constexpr int kLanes = Vec::kLanes;
    const Vec factor = broadcast(inverse);
    int64_t k = 0;
    for (; k + 2 * kLanes <= depth; k += 2 * kLanes) {
      const Ints low = nearest(row.vector(k) * factor), high = nearest(row.vector(k + kLanes) * factor);
#if defined(__AVX512F__)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k), _mm512_cvtepi32_epi16(low.v));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k + kLanes), _mm512_cvtepi32_epi16(high.v));
#else
      const __m256i packed = _mm256_packs_epi32(low.v, high.v);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k), _mm256_permute4x64_epi64(packed, 0xd8));
#endif
    }
    for (; k < depth; ++k) to[k] = static_cast<Left>(nearest(row.at(k) * inverse));
    if (k % 2) to[k] = 0;
  }
};
constexpr auto kLeftStride = QuantizedLeft<Prepared>::stride;
constexpr auto kPackLeft = QuantizedLeft<Prepared>::pack;

// Two pairs of k.
inline void store_four(Element* at, const Ints (&four)[4]) {
  const Ints all = join(four);
  Element* const second = at + 2 * Tile::kColumns;
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm512_cvtepi32_epi16(all.v));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(second), _mm512_cvtepi32_epi16(_mm512_srli_epi32(all.v, 16)));
#else
  const __m256i low = _mm256_and_si256(all.v, _mm256_set1_epi32(0xffff)), high = _mm256_srli_epi32(all.v, 16);
  const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm256_castsi256_si128(pairs));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(second), _mm256_extracti128_si256(pairs, 1));
#endif
}
inline void finish_panel(Element*, int64_t) {}

#if defined(__AVX512F__)
inline Ints load_widened(const Element* p) {
  return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Ints broadcast_pair(const Left* p) {
  int32_t pair;
  memcpy(&pair, p, sizeof pair);
  return {_mm512_set1_epi32(pair)};
}
inline Ints add_pairs(Ints sum, Ints x, Ints y) { return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(x.v, y.v))}; }
#else
inline Ints load_widened(const Element* p) {
  return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline Ints broadcast_pair(const Left* p) {
  int32_t pair;
  memcpy(&pair, p, sizeof pair);
  return {_mm256_set1_epi32(pair)};
}
inline Ints add_pairs(Ints sum, Ints x, Ints y) { return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(x.v, y.v))}; }
#endif

template <int kRows>
inline __attribute__((always_inline)) void add_products(Ints (&sums)[kRows][Tile::kVectors], const Left* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  constexpr int kBases = (kRows + 2) / 3;  // as in vector_sums.h
  const Left* base[kBases];
#pragma GCC unroll 8
  for (int b = 0; b < kBases; ++b) base[b] = x + 3 * b * stride;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = zero_ints();
  }
  for (int64_t k = depth; k > 0; k -= 2) {
    __builtin_prefetch(ahead, 0, 3);
    ahead += ahead_step;
    Ints weights[Tile::kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < Tile::kVectors; ++j) weights[j] = load_widened(panel + 2 * j * Vec::kLanes);
    panel += 2 * Tile::kColumns;
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Ints pair = broadcast_pair(base[i / 3] + (i % 3) * stride);
#pragma GCC unroll 2
      for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = add_pairs(sums[i][j], pair, weights[j]);
    }
#pragma GCC unroll 8
    for (int b = 0; b < kBases; ++b) base[b] += 2;
  }
}

// What `peak` multiplies: a sum plus pairs of products.
struct Multiplied {
  static constexpr int kLanes = 2 * Vec::kLanes;
  Ints v;
};
inline void splat(Multiplied& x, float value) { x.v = nearest(broadcast(value * 100.0f)); }
inline Multiplied fma(Multiplied sum, Multiplied x, Multiplied y) {
  asm volatile("" : "+x"(x.v.v));  // not one product for all
  return {add_pairs(sum.v, x.v, y.v)};
}
inline Multiplied operator+(Multiplied a, Multiplied b) { return {a.v + b.v}; }
inline float reduce_add(Multiplied x) { return reduce_add(to_floats(x.v)); }

}  // namespace squeezebert::SQUEEZEBERT_UNIT
