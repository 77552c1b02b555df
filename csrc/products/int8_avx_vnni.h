// int8 on x86 with VNNI (AVX512_VNNI; AVX-VNNI for 256 bits): VPDPBUSD adds four products of an unsigned and a signed
// byte to a 32-bit sum. Rows are the unsigned side, so 128 is added to values that have a sign, and 128 times the sum
// of a column, which the panel's tail holds, is taken off again: where the sums start, at no cost.
#pragma once

#include "products/avx_broadcast_row.h"
#include "products/quantized.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// 14 x 32 with AVX-512, 6 x 16 without: sums, two weights and a broadcast are 31 of 32 registers, or 15 of 16.
struct Tile {
  static constexpr int kVectors = 2;
  static constexpr int kRows = (Vec::kRegisters - kVectors - 1) / kVectors;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr bool kGeluInMemory = false;
};
constexpr int kStep = 4;

using Element = int8_t;
using Left = uint8_t;
constexpr int kKGroup = 4;
constexpr int kTailBytes = Tile::kColumns * (sizeof(float) + sizeof(int32_t));  // scales, then sums
constexpr bool kQuantized = true;

struct Prepared {
  using Value = Left;
  static constexpr int kKGroup = SQUEEZEBERT_UNIT::kKGroup;
  static int32_t offset(bool non_negative) { return non_negative ? 0 : 128; }
  static constexpr int kTogether = 4;
  static void store(Left* to, const Ints (&whole)[4]) {
#if defined(__AVX512F__)
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16 * u), _mm512_cvtepi32_epi8(whole[u].v));
    }
#else
    const __m256i low = _mm256_packs_epi32(whole[0].v, whole[1].v), high = _mm256_packs_epi32(whole[2].v, whole[3].v);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
#endif
  }
};
constexpr auto kLeftStride = QuantizedLeft<Prepared>::stride;
constexpr auto kPackLeft = QuantizedLeft<Prepared>::pack;

inline void store_four(Element* at, const Ints (&four)[4]) { store(reinterpret_cast<int32_t*>(at), join(four)); }

// One statement an instruction, because GCC 12 copies every sum around the intrinsic (half of the rate). They run in
// the order written here.
inline __attribute__((always_inline)) Ints add_fours(Ints sum, Ints x, Ints y) {
#if defined(__AVX512F__)
  asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(x.v), "v"(y.v));
#else
  asm volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.v) : "x"(x.v), "x"(y.v));
#endif
  return sum;
}
inline __attribute__((always_inline)) Ints load_in_order(const Element* p) {
  Ints x;
#if defined(__AVX512F__)
  asm volatile("vmovdqu32 %1, %0" : "=v"(x.v) : "m"(*reinterpret_cast<const __m512i_u*>(p)));
#else
  asm volatile("vmovdqu %1, %0" : "=x"(x.v) : "m"(*reinterpret_cast<const __m256i_u*>(p)));
#endif
  return x;
}

inline int64_t fours(int64_t depth) { return (depth + kKGroup - 1) / kKGroup; }
inline const int32_t* column_sums(const Element* panel, int64_t depth) {
  return reinterpret_cast<const int32_t*>(panel + fours(depth) * kKGroup * Tile::kColumns) + Tile::kColumns;
}

inline void finish_panel(Element* panel, int64_t depth) {
  const Ints ones = broadcast_int(0x01010101);
  for (int j = 0; j < Tile::kVectors; ++j) {
    Ints sum = zero_ints();
    const Element* p = panel + kKGroup * j * Vec::kLanes;
    for (int64_t k = fours(depth); k > 0; --k, p += kKGroup * Tile::kColumns)
      sum = add_fours(sum, ones, load_in_order(p));
    store(const_cast<int32_t*>(column_sums(panel, depth)) + j * Vec::kLanes, sum);
  }
}

template <int kRows>
inline __attribute__((always_inline)) void add_products(Ints (&sums)[kRows][Tile::kVectors], const Left* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  asm volatile("" ::: "memory");  // broadcast_row
  const ptrdiff_t row_bytes = stride * static_cast<ptrdiff_t>(sizeof(Left));
  constexpr int kBases = (kRows + 2) / 3;  // as in vector_sums.h
  const Left* base[kBases];
#pragma GCC unroll 8
  for (int b = 0; b < kBases; ++b) base[b] = x + 3 * b * stride;
  // All rows of a block have one offset.
  LeftTail tail;
  memcpy(&tail, x + fours(depth) * kKGroup, sizeof tail);
#pragma GCC unroll 2
  for (int j = 0; j < Tile::kVectors; ++j) {
    const Ints start = load(column_sums(panel, depth) + j * Vec::kLanes) * broadcast_int(-tail.offset);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) sums[i][j] = start;
  }
  for (int64_t k = fours(depth); k > 0; --k) {
#pragma GCC unroll 2
    for (int line = 0; line < kKGroup * Tile::kColumns; line += 64) __builtin_prefetch(ahead + line, 0, 3);
    ahead += ahead_step;
    Ints weights[Tile::kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < Tile::kVectors; ++j) weights[j] = load_in_order(panel + kKGroup * j * Vec::kLanes);
    panel += kKGroup * Tile::kColumns;
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Ints four = broadcast_row(base[i / 3], row_bytes, i % 3);
#pragma GCC unroll 2
      for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = add_fours(sums[i][j], four, weights[j]);
    }
#pragma GCC unroll 8
    for (int b = 0; b < kBases; ++b) base[b] += kKGroup;
  }
}

// What `peak` multiplies: a sum plus fours of products.
struct Multiplied {
  static constexpr int kLanes = 4 * Vec::kLanes;
  Ints v;
};
inline void splat(Multiplied& x, float value) { x.v = nearest(broadcast(value * 100.0f)); }
inline Multiplied fma(Multiplied sum, Multiplied x, Multiplied y) { return {add_fours(sum.v, x.v, y.v)}; }
inline Multiplied operator+(Multiplied a, Multiplied b) { return {a.v + b.v}; }
inline float reduce_add(Multiplied x) { return reduce_add(to_floats(x.v)); }

}  // namespace squeezebert::SQUEEZEBERT_UNIT
