// The vector of AVX2 with FMA and F16C: 8 floats, 16 registers.
#pragma once

#include <immintrin.h>
#include <stddef.h>

#include "simd/bfloat16.h"
#include "simd/half.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

struct Vec {
  static constexpr int kLanes = 8;
  static constexpr int kRegisters = 16;
  __m256 v;
};

inline __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Vec zero() { return {_mm256_setzero_ps()}; }
inline Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
inline Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline Vec load_partial(const float* p, int n) { return {_mm256_maskload_ps(p, first_lanes(n))}; }
inline void store(float* p, Vec x) { _mm256_storeu_ps(p, x.v); }
inline void store_partial(float* p, Vec x, int n) { _mm256_maskstore_ps(p, first_lanes(n), x.v); }

inline Vec load(const Half* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
inline void store(Half* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_one(Half* p, float x) {
  p->bits = static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT)));
}

inline Vec load(const BFloat16* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
}
inline void store(BFloat16* p, Vec x) {  // as store_one does it
  const __m256i bits = _mm256_castps_si256(x.v);
  const __m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), even);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q));
  const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(upper, upper), _MM_SHUFFLE(3, 1, 2, 0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}

inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }

// b where either side is NaN, and where both are zeros.
inline Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }

inline Vec abs(Vec x) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.v)}; }

// Adding 1.5 * 2^23 rounds u to a whole number, which then stands in the sum's last bits; 190 more make it the exponent
// field of 2^(n + 63), and a second factor reaches denormal results with one rounding.
struct Exponent {
  Vec n;
  Vec power;
};
inline Exponent nearest_exponent(Vec u) {
  const Vec shift = broadcast(0x1.8p23f + 190.0f);
  const Vec shifted = u + shift;
  return {shifted - shift, {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted.v), 23))}};
}
inline Vec scale(Vec x, Exponent e) { return x * e.power * broadcast(0x1p-63f); }

struct Ints {
  __m256i v;
};
inline Ints broadcast_int(int32_t x) { return {_mm256_set1_epi32(x)}; }
inline Ints zero_ints() { return {_mm256_setzero_si256()}; }
inline Ints load(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline void store(int32_t* p, Ints x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.v); }
inline Ints operator+(Ints a, Ints b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline Ints operator*(Ints a, Ints b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
inline Ints max(Ints a, Ints b) { return {_mm256_max_epi32(a.v, b.v)}; }
inline int32_t reduce_max(Ints x) {
  __m128i s = _mm_max_epi32(_mm256_castsi256_si128(x.v), _mm256_extracti128_si256(x.v, 1));
  s = _mm_max_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(1, 0, 3, 2)));
  s = _mm_max_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(2, 3, 0, 1)));
  return _mm_cvtsi128_si32(s);
}
inline Ints magnitude_bits(Vec x) { return {_mm256_castps_si256(abs(x).v)}; }
inline Vec to_floats(Ints x) { return {_mm256_cvtepi32_ps(x.v)}; }
inline Ints nearest(Vec x) { return {_mm256_cvtps_epi32(x.v)}; }
inline Ints join(const Ints (&x)[2]) { return {_mm256_blend_epi16(x[0].v, _mm256_slli_epi32(x[1].v, 16), 0xaa)}; }
inline Ints join(const Ints (&x)[4]) {
  const __m256i even = _mm256_blend_epi16(x[0].v, _mm256_slli_epi32(x[2].v, 16), 0xaa);
  const __m256i odd = _mm256_blend_epi16(x[1].v, _mm256_slli_epi32(x[3].v, 16), 0xaa);
  return {_mm256_blendv_epi8(even, _mm256_slli_epi16(odd, 8), _mm256_set1_epi16(static_cast<short>(0xff00)))};
}

inline float reduce_add(Vec x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  s = _mm_add_ss(s, _mm_movehdup_ps(s));
  return _mm_cvtss_f32(s);
}
inline float reduce_max(Vec x) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  s = _mm_max_ss(s, _mm_movehdup_ps(s));
  return _mm_cvtss_f32(s);
}

// Four consecutive floats from each of kLanes rows, turned into four vectors of one float per row. Every 128-bit lane
// takes four rows and is transposed by itself.
inline void load_transposed(const float* p, ptrdiff_t stride, Vec columns[4]) {
  __m256 rows[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const float* row = p + i * stride;
    rows[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row)), _mm_loadu_ps(row + 4 * stride), 1);
  }
  const __m256 a = _mm256_unpacklo_ps(rows[0], rows[1]);
  const __m256 b = _mm256_unpackhi_ps(rows[0], rows[1]);
  const __m256 c = _mm256_unpacklo_ps(rows[2], rows[3]);
  const __m256 d = _mm256_unpackhi_ps(rows[2], rows[3]);
  columns[0] = {_mm256_shuffle_ps(a, c, _MM_SHUFFLE(1, 0, 1, 0))};
  columns[1] = {_mm256_shuffle_ps(a, c, _MM_SHUFFLE(3, 2, 3, 2))};
  columns[2] = {_mm256_shuffle_ps(b, d, _MM_SHUFFLE(1, 0, 1, 0))};
  columns[3] = {_mm256_shuffle_ps(b, d, _MM_SHUFFLE(3, 2, 3, 2))};
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
