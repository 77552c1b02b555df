// Exact GELU, x Phi(x) = x (1 + erf(x / sqrt(2))) / 2, in float32. Include after a simd header. The coefficients come from
// math/fit.py (weighted minimax).
//
//   gelu(x) = max(x, 0) - |x| Phi(-|x|),  Phi(-a) = q(a)^8,  q of degree 8 on 0 <= a <= 8, held beyond
//
// The eighth root of the normal tail is a far tamer function than erf, and its error counts little where q is small:
// 14 instructions, no division, no table, 11 constants. An odd polynomial for Phi - 1/2 would need 18 (degree 27).
#pragma once

namespace squeezebert::SQUEEZEBERT_ISA {

inline Vec gelu(Vec x) {
  const Vec a = min(broadcast(8.0f), abs(x));
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
  q = q * q;
  return fnma(a, q, max(zero(), x));
}

}  // namespace squeezebert::SQUEEZEBERT_ISA
