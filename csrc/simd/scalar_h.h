// scalar with float16 panels, converted by hand: the oracle of the others' conversions. Included once, by
// isa/scalar_h.cc.
#pragma once

#include <string.h>

#include "simd/half_panels.h"
#include "simd/scalar_vector.h"

namespace squeezebert::SQUEEZEBERT_ISA {

using Product = Vec;

// A float16 is sign, 5 bits of exponent (bias 15), 10 of mantissa; a float32 is sign, 8 (bias 127), 23.
inline Vec load(const Half* p) {
  const uint32_t sign = static_cast<uint32_t>(p->bits & 0x8000) << 16;
  const uint32_t magnitude = p->bits & 0x7fff;
  uint32_t bits;
  if (magnitude >= 0x7c00) {  // infinity, NaN
    bits = 0x7f800000 | magnitude << 13;
  } else if (magnitude >= 0x0400) {
    bits = (magnitude << 13) + ((127 - 15) << 23);
  } else {  // zero, subnormal: so many times 2^-24
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    memcpy(&bits, &value, sizeof bits);
  }
  bits |= sign;
  Vec x;
  memcpy(&x.v, &bits, sizeof bits);
  return x;
}

// To nearest, ties to even.
inline void store_one(Half* p, float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  bits &= 0x7fffffff;
  uint32_t magnitude;
  if (bits > 0x7f800000) {  // NaN, made quiet
    magnitude = 0x7e00 | (bits >> 13 & 0x3ff);
  } else if (bits >= 0x477ff000) {  // 65520 and more round to infinity
    magnitude = 0x7c00;
  } else if (bits >= 0x38800000) {  // 2^-14 and more: normal. Adds half of the last place, less one where that is even.
    magnitude = (bits - ((127 - 15) << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
  } else {  // subnormal: multiples of 2^-24, which is the last place of 0.5, so that the addition rounds there
    const float shifted = fabsf(x) + 0.5f;
    memcpy(&magnitude, &shifted, sizeof magnitude);
    magnitude -= 0x3f000000;
  }
  p->bits = static_cast<uint16_t>(sign | magnitude);
}
inline void store(Half* p, Vec x) { store_one(p, x.v); }

}  // namespace squeezebert::SQUEEZEBERT_ISA
