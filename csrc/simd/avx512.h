// The AVX-512 vector: 16 floats, 32 registers.
#pragma once

#include <immintrin.h>
#include <stddef.h>

#include "simd/bfloat16.h"
#include "simd/half.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

struct Vec {
  static constexpr int kLanes = 16;
  static constexpr int kRegisters = 32;
  __m512 v;
};

inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }

inline Vec zero() { return {_mm512_setzero_ps()}; }
inline Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Vec load_partial(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
inline void store(float* p, Vec x) { _mm512_storeu_ps(p, x.v); }
inline void store_partial(float* p, Vec x, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), x.v); }

inline Vec load(const Half* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline void store(Half* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_one(Half* p, float x) {
  p->bits = static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT)));
}

inline Vec load(const BFloat16* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }

// b where either side is NaN, and where both are zeros.
inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }

inline Vec abs(Vec x) { return {_mm512_abs_ps(x.v)}; }

struct Exponent {
  Vec n;
};
inline Exponent nearest_exponent(Vec u) {
  return {{_mm512_roundscale_ps(u.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}};
}
inline Vec scale(Vec x, Exponent e) { return {_mm512_scalef_ps(x.v, e.n.v)}; }

struct Ints {
  __m512i v;
};
inline Ints broadcast_int(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline Ints zero_ints() { return {_mm512_setzero_si512()}; }
inline Ints load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store(int32_t* p, Ints x) { _mm512_storeu_si512(p, x.v); }
inline Ints operator+(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Ints operator*(Ints a, Ints b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
inline Ints max(Ints a, Ints b) { return {_mm512_max_epi32(a.v, b.v)}; }
inline int32_t reduce_max(Ints x) { return _mm512_reduce_max_epi32(x.v); }
inline Ints magnitude_bits(Vec x) { return {_mm512_castps_si512(abs(x).v)}; }
inline Vec to_floats(Ints x) { return {_mm512_cvtepi32_ps(x.v)}; }
inline Ints nearest(Vec x) { return {_mm512_cvtps_epi32(x.v)}; }
// The bits of the nearest bfloat16s, as store_one makes them.
inline Ints rounded_to_bfloat16(Vec x) {
  const __m512i bits = _mm512_castps_si512(x.v);
  const __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), even);
  const __mmask16 nan = _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q);
  return {_mm512_srli_epi32(_mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000)), 16)};
}
inline void store(BFloat16* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(rounded_to_bfloat16(x).v));
}

inline Ints join(const Ints (&x)[2]) {
  return {_mm512_mask_blend_epi16(0xaaaaaaaau, x[0].v, _mm512_slli_epi32(x[1].v, 16))};
}
inline Ints join(const Ints (&x)[4]) {
  const __m512i even = _mm512_mask_blend_epi16(0xaaaaaaaau, x[0].v, _mm512_slli_epi32(x[2].v, 16));
  const __m512i odd = _mm512_mask_blend_epi16(0xaaaaaaaau, x[1].v, _mm512_slli_epi32(x[3].v, 16));
  return {_mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaau, even, _mm512_slli_epi16(odd, 8))};
}

// Written out, because _mm512_reduce_add_ps leaves the order to the compiler.
inline float reduce_add(Vec x) {
  const __m256 e = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  s = _mm_add_ss(s, _mm_movehdup_ps(s));
  return _mm_cvtss_f32(s);
}
inline float reduce_max(Vec x) { return _mm512_reduce_max_ps(x.v); }

// Four consecutive floats from each of kLanes rows, turned into four vectors of one float per row. Every 128-bit lane
// takes four rows and is transposed by itself.
inline void load_transposed(const float* p, ptrdiff_t stride, Vec columns[4]) {
  __m512 rows[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const float* row = p + i * stride;
    const __m256 low =
        _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row)), _mm_loadu_ps(row + 4 * stride), 1);
    const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row + 8 * stride)),
                                             _mm_loadu_ps(row + 12 * stride), 1);
    rows[i] = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
  }
  const __m512 a = _mm512_unpacklo_ps(rows[0], rows[1]);
  const __m512 b = _mm512_unpackhi_ps(rows[0], rows[1]);
  const __m512 c = _mm512_unpacklo_ps(rows[2], rows[3]);
  const __m512 d = _mm512_unpackhi_ps(rows[2], rows[3]);
  columns[0] = {_mm512_shuffle_ps(a, c, _MM_SHUFFLE(1, 0, 1, 0))};
  columns[1] = {_mm512_shuffle_ps(a, c, _MM_SHUFFLE(3, 2, 3, 2))};
  columns[2] = {_mm512_shuffle_ps(b, d, _MM_SHUFFLE(1, 0, 1, 0))};
  columns[3] = {_mm512_shuffle_ps(b, d, _MM_SHUFFLE(3, 2, 3, 2))};
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
