// exp for softmax, in float32: for x <= 0. The coefficients come from math/fit.py (weighted minimax).
//
//   exp(x) = 2^u,  u = x / ln 2,  n = round(u),  r = u - n (exact),  2^u = 2^n p(r),  p of degree 5 on |r| <= 1 / 2
//
// Range: x <= 0 and NaN. Below -103.97 exactly 0, through the denormals; exp(0) = 1 exactly; exp(-infinity) = 0; NaN
// gives NaN. Above 0 it is as good up to 44, and not defined beyond.
//
// Error: the rounding of u and of 1 / ln 2 costs up to 1.25 |x| ULP where a reduction with ln 2 in two parts would not,
// which matters to a general exp and not to softmax: probabilities err by at most 1.25 |x| exp(x) 2^-24 < 2.8e-8 from
// it, and by 1.8 ULP from p. Absolute, over all floats x <= 0: 1.2e-7. 10 instructions; that reduction and degree 6
// would take 13 (0.9 ULP).
#pragma once

#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

inline Vec exp(Vec x) {
  const Vec u = max(broadcast(-150.0f), x * broadcast(0x1.715476p+0f));  // 2^-150 rounds to 0
  const Exponent exponent = nearest_exponent(u);
  const Vec r = u - exponent.n;
  Vec p = fma(r, broadcast(0x1.5aab6cp-10f), broadcast(0x1.3cec48p-7f));
  p = fma(r, p, broadcast(0x1.c6babcp-5f));
  p = fma(r, p, broadcast(0x1.ebf9b6p-3f));
  p = fma(r, p, broadcast(0x1.62e424p-1f));
  p = fma(r, p, broadcast(1.0f));
  return scale(p, exponent);
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
