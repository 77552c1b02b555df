// Exact GELU, x Phi(x) = x (1 + erf(x / sqrt(2))) / 2, in float32. The coefficients come from math/fit.py (weighted
// minimax).
//
//   gelu(x) = max(x, 0) - a Phi(-a),  a = |x|,  Phi(-a) = q(a)^8,  q of degree 8 on 0 <= a <= 8, where it reaches 0
//
// Range: all of float32. gelu(x) = x exactly from 8 on (where gelu(x) rounds to x); +0 exactly from -8 down (where it
// is above -5e-15) and for either zero. NaN gives NaN, and so does either infinity, as in PyTorch's float32 path: an
// overflow upstream is not hidden by the limit 0.
//
// Error, of all floats: 1.71e-7 beyond the result's own rounding (worst x = -0x1.3c9d66p+0), and 2.93e-7 |x| with it
// (worst x = 0x1.5a0dbcp-10). torch.nn.functional.gelu, torch 2.13 on AVX-512: 1.14e-6 and 3.7e-7 |x|.
//
// Phi(-a) spans fifteen orders of magnitude, its eighth root two, and an error of q counts little where q is small:
// degree 8 and three squarings do. 14 arithmetic instructions and one for |x|, 11 constants, no division, no table. The
// same error takes an odd polynomial for Phi - 1/2 of degree 27, 18 instructions; the fourth root takes degree 9, as
// many instructions, for a bound at 5.8 and eight times the error of fit; a rational function costs a division, by
// itself worth ten multiply-adds.
#pragma once

#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// Phi(-a), for 0 <= a <= 8.
inline Vec normal_tail(Vec a) {
  Vec q = fma(a, broadcast(-0x1.3eb680p-22f), broadcast(0x1.f56d70p-18f));
  q = fma(a, q, broadcast(-0x1.f807d4p-15f));
  q = fma(a, q, broadcast(0x1.17ed1ep-15f));
  q = fma(a, q, broadcast(0x1.8af584p-10f));
  q = fma(a, q, broadcast(-0x1.61d08cp-11f));
  q = fma(a, q, broadcast(-0x1.058a32p-5f));
  q = fma(a, q, broadcast(-0x1.769c9ep-4f));
  q = fma(a, q, broadcast(0x1.d5818ep-1f));  // at a = 8 exactly 0
  q = q * q;
  q = q * q;
  return q * q;
}

inline Vec gelu(Vec x) {
  const Vec magnitude = abs(x);
  const Vec tail = normal_tail(min(broadcast(8.0f), magnitude));
  return fnma(magnitude, tail, max(x, zero()));  // infinity * 0 is NaN
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
