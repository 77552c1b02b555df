// The scalar "vector": one float, plain C++. The specification of the vector types: the same kernels, instantiated with
// it, are the oracle of every other ISA, to the last bit, and the path of any CPU.
#pragma once

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "simd/bfloat16.h"
#include "simd/half.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

struct Vec {
  static constexpr int kLanes = 1;
  static constexpr int kRegisters = 16;
  float v;
};

inline Vec zero() { return {0.0f}; }
inline Vec broadcast(float x) { return {x}; }
inline Vec load(const float* p) { return {*p}; }
inline Vec load_partial(const float* p, int n) { return {n > 0 ? *p : 0.0f}; }
inline void store(float* p, Vec x) { *p = x.v; }
inline void store_partial(float* p, Vec x, int n) {
  if (n > 0) *p = x.v;
}

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

inline Vec load(const BFloat16* p) {
  const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
  Vec x;
  memcpy(&x.v, &bits, sizeof bits);
  return x;
}
inline void store(BFloat16* p, Vec x) { store_one(p, x.v); }

inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }

// One rounding, as the vector ISAs have it, without an FMA instruction, which a baseline x86-64 lacks. The product of
// two floats is exact in double; the sum is rounded to odd there (to the neighbour whose last bit is 1 unless it is
// exact), and so rounds to float as the exact value would (Boldo and Melquiond 2008, IEEE Trans. Comput. 57, 462).
inline Vec fma(Vec a, Vec b, Vec c) {
  const double product = static_cast<double>(a.v) * b.v;
  double sum = product + c.v;
  const double of_c = sum - product;
  const double error = (product - (sum - of_c)) + (c.v - of_c);  // Knuth's two-sum: exact
  uint64_t bits;
  memcpy(&bits, &sum, sizeof bits);
  if ((error > 0.0 || error < 0.0) && bits % 2 == 0) {  // NaN is neither
    bits += (error > 0.0) == (sum > 0.0) ? 1 : -1;
    memcpy(&sum, &bits, sizeof sum);
  }
  return {static_cast<float>(sum)};
}
inline Vec fnma(Vec a, Vec b, Vec c) { return fma({-a.v}, b, c); }

// b where either side is NaN, and where both are zeros.
inline Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
inline Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }

inline Vec abs(Vec x) { return {fabsf(x.v)}; }

// The whole number n nearest to u, the even one of two, where it is from -189 to 64; and x * 2^n, rounded once. NaN
// stays NaN in both.
struct Exponent {
  Vec n;
};
inline Exponent nearest_exponent(Vec u) { return {{nearbyintf(u.v)}}; }
inline Vec scale(Vec x, Exponent e) { return {e.n.v == e.n.v ? ldexpf(x.v, static_cast<int>(e.n.v)) : e.n.v}; }

// 32-bit whole numbers, as many as a Vec has floats.
struct Ints {
  int32_t v;
};
inline Ints broadcast_int(int32_t x) { return {x}; }
inline Ints zero_ints() { return {0}; }
inline Ints load(const int32_t* p) { return {*p}; }
inline void store(int32_t* p, Ints x) { *p = x.v; }
inline Ints operator+(Ints a, Ints b) { return {a.v + b.v}; }
inline Ints operator*(Ints a, Ints b) { return {a.v * b.v}; }
inline Ints max(Ints a, Ints b) { return {a.v > b.v ? a.v : b.v}; }
inline int32_t reduce_max(Ints x) { return x.v; }

// The bits of |x|, which as whole numbers are in the order of the magnitudes, with NaN above infinity.
inline Ints magnitude_bits(Vec x) {
  Ints bits;
  memcpy(&bits.v, &x.v, sizeof bits.v);
  bits.v &= 0x7fffffff;
  return bits;
}
inline Vec to_floats(Ints x) { return {static_cast<float>(x.v)}; }
// The nearest whole number, the even one of two, where |x| < 2^22; of NaN a multiple of 2^16. Adding 1.5 * 2^23 rounds,
// and leaves the number in the sum's last bits.
inline Ints nearest(Vec x) {
  const float shift = 0x1.8p23f, sum = x.v + shift;
  int32_t bits, zero_bits;
  memcpy(&bits, &sum, sizeof bits);
  memcpy(&zero_bits, &shift, sizeof zero_bits);
  return {x.v == x.v ? bits - zero_bits : 0};
}
// The last 8 bits of four, and the last 16 of two, the first lowest.
inline Ints join(const Ints (&x)[4]) {
  uint32_t all = 0;
  for (int i = 0; i < 4; ++i) all |= (static_cast<uint32_t>(x[i].v) & 0xff) << 8 * i;
  return {static_cast<int32_t>(all)};
}
inline Ints join(const Ints (&x)[2]) {
  return {static_cast<int32_t>((static_cast<uint32_t>(x[0].v) & 0xffff) | static_cast<uint32_t>(x[1].v) << 16)};
}

inline float reduce_add(Vec x) { return x.v; }
inline float reduce_max(Vec x) { return x.v; }

// Four consecutive floats from each of kLanes rows, turned into four vectors of one float per row.
inline void load_transposed(const float* p, ptrdiff_t, Vec columns[4]) {
  for (int u = 0; u < 4; ++u) columns[u] = {p[u]};
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
