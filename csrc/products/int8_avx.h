// int8 on x86 without VNNI: 16-bit factors, multiplied and added in pairs by VPMADDWD, which cannot saturate as the
// instruction for bytes, VPMADDUBSW, does. Panels hold bytes, widened as they are loaded; rows are prepared as 16 bits.
#pragma once

#include "products/avx_broadcast_row.h"
#include "products/quantized.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// Two vectors wide, and as tall as the registers allow beside two weights, a broadcast and a product: 6 x 16, or 14 x
// 32 with AVX-512. For two k a row takes a broadcast, two VPMADDWD and two VPADDD. Zen 3 has two pipes for the first
// and four for both, which share them unevenly: 7.4 cycles for what could be 6, and takes float32 12.
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
  static constexpr int kTogether = 2;
  static void store(Left* to, const Ints (&whole)[2]) {
#if defined(__AVX512F__)
    const __m512i packed = _mm512_packs_epi32(whole[0].v, whole[1].v);
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi64(order, packed));
#else
    const __m256i packed = _mm256_packs_epi32(whole[0].v, whole[1].v);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0)));
#endif
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
  const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), _MM_SHUFFLE(3, 1, 2, 0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm256_castsi256_si128(pairs));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(second), _mm256_extracti128_si256(pairs, 1));
#endif
}
inline void finish_panel(Element*, int64_t) {}

// One statement an instruction, because GCC 12 keeps sums in memory around the intrinsics (half of the rate). They run
// in the order written here.
inline __attribute__((always_inline)) Ints load_widened(const Element* p) {
  struct Half {
    char bytes[sizeof(Ints) / 2];
  };
  Ints x;
  asm volatile("vpmovsxbw %1, %0" : "=v"(x.v) : "m"(*reinterpret_cast<const Half*>(p)));
  return x;
}
inline __attribute__((always_inline)) Ints multiply_pairs(Ints x, Ints y) {
  Ints product;
  asm volatile("vpmaddwd %2, %1, %0" : "=v"(product.v) : "v"(x.v), "v"(y.v));
  return product;
}
inline __attribute__((always_inline)) Ints add_in_order(Ints sum, Ints x) {
  asm volatile("vpaddd %1, %0, %0" : "+v"(sum.v) : "v"(x.v));
  return sum;
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
      const Ints pair = broadcast_row(base[i / 3], row_bytes, i % 3);
      Ints products[Tile::kVectors];
#pragma GCC unroll 2
      for (int j = 0; j < Tile::kVectors; ++j) products[j] = multiply_pairs(pair, weights[j]);
#pragma GCC unroll 2
      for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = add_in_order(sums[i][j], products[j]);
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
  return {add_in_order(sum.v, multiply_pairs(x.v, y.v))};
}
inline Multiplied operator+(Multiplied a, Multiplied b) { return {a.v + b.v}; }
inline float reduce_add(Multiplied x) { return reduce_add(to_floats(x.v)); }

}  // namespace squeezebert::SQUEEZEBERT_UNIT
