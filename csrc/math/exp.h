// exp in float32. Include after a simd header. The coefficients come from math/fit.py (weighted minimax).
//
//   n = round(x / ln 2),  r = x - n ln 2,  exp(x) = 2^n p(r),  p of degree 6 on |r| <= ln(2) / 2
//
// Range: all of float32. Overflows to infinity above 88.7228, underflows gracefully through the denormals to 0 below
// -103.972; exp(0) = 1 and exp(-infinity) = 0 exactly; NaN gives NaN.
//
// Error, of all floats: 0.892 ULP (worst x = -0x1.765026p+2).
//
// 13 instructions. Degree 5 would save one and err by 1.7 ULP; ln 2 in one part would save one and err by up to
// |x| / 22 ULP more.
#pragma once

namespace squeezebert::SQUEEZEBERT_ISA {

inline Vec exp(Vec x) {
  // Held to where 2^n p(r) already rounds to 0 and to infinity: an infinite x would give r = infinity - infinity.
  x = min(broadcast(89.0f), max(broadcast(-104.5f), x));
  const Vec n = round(x * broadcast(0x1.715476p+0f));
  // ln 2 in two parts; subtracting the first is exact, for the difference fits into a float.
  Vec r = fnma(n, broadcast(0x1.62e430p-1f), x);
  r = fnma(n, broadcast(-0x1.05c610p-29f), r);
  Vec p = fma(r, broadcast(0x1.697792p-10f), broadcast(0x1.1239aap-7f));
  p = fma(r, p, broadcast(0x1.555a04p-5f));
  p = fma(r, p, broadcast(0x1.555492p-3f));
  p = fma(r, p, broadcast(0x1.fffffap-2f));
  p = fma(r, p, broadcast(1.0f));
  p = fma(r, p, broadcast(1.0f));
  return scale_by_power_of_two(p, n);
}

}  // namespace squeezebert::SQUEEZEBERT_ISA
