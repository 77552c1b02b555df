// float16 on NEON, which every Armv8-A converts: four of them to a vector and back. Included by neon_h.h and neon_hp.h.
#pragma once

#include "simd/half_panels.h"
#include "simd/neon_vector.h"

namespace squeezebert::SQUEEZEBERT_ISA {

inline Vec load(const Half* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)))}; }
inline void store(Half* p, Vec x) { vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(x.v))); }
inline void store_one(Half* p, float x) {
  vst1_lane_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(x))), 0);
}

}  // namespace squeezebert::SQUEEZEBERT_ISA
