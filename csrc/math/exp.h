// exp in float32. Include after a simd header. The coefficients come from math/fit.py (weighted minimax).
//
//   n = round(x / ln 2),  r = x - n ln 2 (in two parts),  exp(x) = 2^n p(r),  p of degree 6 on |r| <= ln(2) / 2
//
// Range: all of float32. Overflows to infinity above 88.7228, underflows gracefully through the denormals to 0 below
// -103.972; exp(0) = 1 and exp(-inf) = 0 exactly; NaN gives NaN.
//
// Degree 5 saves one instruction of 13 and errs by 1.7 ULP. One part of ln 2 would save another and err by |x| / 22 ULP more.
#pragma once

namespace squeezebert::SQUEEZEBERT_ISA {

// For x <= 0, as in softmax: 12 instructions. Above 88.7 the result is not defined.
inline Vec exp_nonpositive(Vec x) {
  x = max(broadcast(-0x1.a2p+6f), x);  // -104.5: here 2^n p(r) rounds to 0, and -inf would give inf - inf below
  const Vec n = round(x * broadcast(0x1.715476p+0f));
  // The high part of ln 2 times n is subtracted exactly: fnma rounds once, and the difference fits.
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

// For any x: one instruction more.
inline Vec exp(Vec x) {
  return exp_nonpositive(min(broadcast(0x1.64p+6f), x));  // 89: 2^128 p(r) is infinite
}

}  // namespace squeezebert::SQUEEZEBERT_ISA
