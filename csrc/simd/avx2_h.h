// avx2 with float16 panels, widened as they are loaded: products and sums are float32. Included once, by isa/avx2_h.cc.
#pragma once

#include "simd/avx2_vector.h"
#include "simd/half_panels.h"

namespace squeezebert::SQUEEZEBERT_ISA {

using Product = Vec;

inline Vec load(const Half* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
inline void store(Half* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_one(Half* p, float x) {
  p->bits = static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT)));
}

}  // namespace squeezebert::SQUEEZEBERT_ISA
