// The Arm Advanced SIMD (NEON) vector: 4 floats, 32 registers, nothing beyond Armv8.0-A.
#pragma once

#include <arm_neon.h>
#include <stddef.h>

#include "simd/bfloat16.h"
#include "simd/half.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

struct Vec {
  static constexpr int kLanes = 4;
  static constexpr int kRegisters = 32;
  float32x4_t v;
};

inline Vec zero() { return {vdupq_n_f32(0.0f)}; }
inline Vec broadcast(float x) { return {vdupq_n_f32(x)}; }
inline Vec load(const float* p) { return {vld1q_f32(p)}; }
inline Vec load_partial(const float* p, int n) {
  float lanes[4] = {};
  for (int i = 0; i < 4 && i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
inline void store(float* p, Vec x) { vst1q_f32(p, x.v); }
inline void store_partial(float* p, Vec x, int n) {
  float lanes[4];
  store(lanes, x);
  for (int i = 0; i < 4 && i < n; ++i) p[i] = lanes[i];
}

inline Vec load(const Half* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)))}; }
inline void store(Half* p, Vec x) { vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(x.v))); }
inline void store_one(Half* p, float x) {
  vst1_lane_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(x))), 0);
}

inline Vec load(const BFloat16* p) { return {vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(&p->bits)), 16))}; }
// The bits of the nearest bfloat16s, as store_one makes them.
inline uint16x4_t rounded_to_bfloat16(Vec x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x.v);
  const uint32x4_t even = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), even);
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  return vshrn_n_u32(vbslq_u32(vceqq_f32(x.v, x.v), rounded, quiet), 16);
}
inline void store(BFloat16* p, Vec x) { vst1_u16(&p->bits, rounded_to_bfloat16(x)); }

inline Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
inline Vec fnma(Vec a, Vec b, Vec c) { return {vfmsq_f32(c.v, a.v, b.v)}; }

// NaN where either side is, and the greater of two zeros is +0; on x86 b in both cases. So max(bound, x) hands a NaN in
// x on everywhere, and max(x, zero()) is +0 for either zero.
inline Vec min(Vec a, Vec b) { return {vminq_f32(a.v, b.v)}; }
inline Vec max(Vec a, Vec b) { return {vmaxq_f32(a.v, b.v)}; }

inline Vec abs(Vec x) { return {vabsq_f32(x.v)}; }

// As in avx2.h.
struct Exponent {
  Vec n;
  Vec power;
};
inline Exponent nearest_exponent(Vec u) {
  const Vec shift = broadcast(0x1.8p23f + 190.0f);
  const Vec shifted = u + shift;
  return {shifted - shift, {vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(shifted.v), 23))}};
}
inline Vec scale(Vec x, Exponent e) { return x * e.power * broadcast(0x1p-63f); }

struct Ints {
  int32x4_t v;
};
inline Ints broadcast_int(int32_t x) { return {vdupq_n_s32(x)}; }
inline Ints zero_ints() { return {vdupq_n_s32(0)}; }
inline Ints load(const int32_t* p) { return {vld1q_s32(p)}; }
inline void store(int32_t* p, Ints x) { vst1q_s32(p, x.v); }
inline Ints operator+(Ints a, Ints b) { return {vaddq_s32(a.v, b.v)}; }
inline Ints operator*(Ints a, Ints b) { return {vmulq_s32(a.v, b.v)}; }
inline Ints max(Ints a, Ints b) { return {vmaxq_s32(a.v, b.v)}; }
inline int32_t reduce_max(Ints x) { return vmaxvq_s32(x.v); }
inline Ints magnitude_bits(Vec x) { return {vreinterpretq_s32_f32(abs(x).v)}; }
inline Vec to_floats(Ints x) { return {vcvtq_f32_s32(x.v)}; }
inline Ints nearest(Vec x) { return {vcvtnq_s32_f32(x.v)}; }
inline Ints join(const Ints (&x)[2]) { return {vsliq_n_s32(x[0].v, x[1].v, 16)}; }
inline Ints join(const Ints (&x)[4]) {
  const int32x4_t even = vsliq_n_s32(x[0].v, x[2].v, 16), odd = vsliq_n_s32(x[1].v, x[3].v, 16);
  const int16x8_t all = vsliq_n_s16(vreinterpretq_s16_s32(even), vreinterpretq_s16_s32(odd), 8);
  return {vreinterpretq_s32_s16(all)};
}

inline float reduce_add(Vec x) {  // not vaddvq_f32, which adds neighbours first
  const float32x2_t s = vadd_f32(vget_low_f32(x.v), vget_high_f32(x.v));
  return vget_lane_f32(vpadd_f32(s, s), 0);
}
inline float reduce_max(Vec x) { return vmaxvq_f32(x.v); }

// Four consecutive floats from each of kLanes rows, turned into four vectors of one float per row.
inline void load_transposed(const float* p, ptrdiff_t stride, Vec columns[4]) {
  const float32x4_t row0 = vld1q_f32(p);
  const float32x4_t row1 = vld1q_f32(p + stride);
  const float32x4_t row2 = vld1q_f32(p + 2 * stride);
  const float32x4_t row3 = vld1q_f32(p + 3 * stride);
  const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(row0, row1));
  const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(row0, row1));
  const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(row2, row3));
  const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(row2, row3));
  columns[0] = {vreinterpretq_f32_f64(vtrn1q_f64(a, c))};
  columns[1] = {vreinterpretq_f32_f64(vtrn1q_f64(b, d))};
  columns[2] = {vreinterpretq_f32_f64(vtrn2q_f64(a, c))};
  columns[3] = {vreinterpretq_f32_f64(vtrn2q_f64(b, d))};
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
