// The scalar "vector": one float, plain C++. The same kernels, instantiated with it, are the oracle of every other ISA
// and the path of any CPU. Followed by a choice of panels in simd/scalar.h and scalar_h.h.
#pragma once

#include <math.h>
#include <stddef.h>

namespace squeezebert::SQUEEZEBERT_ISA {

struct Vec {
  static constexpr int kLanes = 1;
  float v;
};

struct Tile {
  static constexpr int kRows = 4;
  static constexpr int kVectors = 4;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr int kDepth = 1;
  static constexpr bool kOwnSteps = false;
};

inline Vec zero() { return {0.0f}; }
inline Vec broadcast(float x) { return {x}; }
inline Vec load(const float* p) { return {*p}; }
inline Vec load_partial(const float* p, int n) { return {n > 0 ? *p : 0.0f}; }
inline void store(float* p, Vec x) { *p = x.v; }
inline void store_partial(float* p, Vec x, int n) {
  if (n > 0) *p = x.v;
}

inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }

// One rounding, as the vector ISAs have it: the product of two floats is exact in double, so only the sum rounds twice,
// to double and then to float. That is not always fmaf's result, but within one unit in its last place, and needs no
// FMA instruction, which a baseline x86-64 lacks (libm's fmaf is then a call of some 50 ns).
inline Vec fma(Vec a, Vec b, Vec c) { return {static_cast<float>(static_cast<double>(a.v) * b.v + c.v)}; }
inline Vec fnma(Vec a, Vec b, Vec c) { return {static_cast<float>(c.v - static_cast<double>(a.v) * b.v)}; }

// Where either side is NaN these return b, so bound(limit, x) hands a NaN in x on.
inline Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
inline Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }

inline Vec abs(Vec x) { return {fabsf(x.v)}; }
inline Vec round(Vec x) { return {nearbyintf(x.v)}; }
inline Vec scale_by_power_of_two(Vec x, Vec n) { return {ldexpf(x.v, static_cast<int>(n.v))}; }

inline float reduce_add(Vec x) { return x.v; }
inline float reduce_max(Vec x) { return x.v; }

// Four consecutive floats from each of kLanes rows, turned into four vectors of one float per row.
inline void load_transposed(const float* p, ptrdiff_t, Vec columns[4]) {
  for (int u = 0; u < 4; ++u) columns[u] = {p[u]};
}

using RowVec = Vec;
inline RowVec load_row(const float* p) { return {*p}; }
template <int kIndex>
inline Vec fma_row(RowVec row, Vec weight, Vec sum) {
  static_assert(kIndex == 0);
  return fma(row, weight, sum);
}

}  // namespace squeezebert::SQUEEZEBERT_ISA
