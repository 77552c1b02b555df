// A row of floats, vector by vector, and the one order in which a row is added up, on every instruction set.
#pragma once

#include <stdint.h>

#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

inline Vec load_some(const float* p, int n) { return n == Vec::kLanes ? load(p) : load_partial(p, n); }
inline void store_some(float* p, Vec x, int n) {
  if (n == Vec::kLanes) {
    store(p, x);
  } else {
    store_partial(p, x, n);
  }
}

// Calls body(first element, count) for every vector of a row; count is kLanes for all but perhaps the last.
template <class Body>
inline __attribute__((always_inline)) void for_each_vector(int64_t count, const Body& body) {
  int64_t c = 0;
  for (; c + Vec::kLanes <= count; c += Vec::kLanes) body(c, Vec::kLanes);
  if (c < count) body(c, static_cast<int>(count - c));
}

// 64 partial sums, whatever the vector: element i goes to sum i mod 64. 64 lanes are 4 accumulators of AVX-512 and 8 of
// AVX2, just what hides the latency of their adds (4 cycles at two a cycle), and 16 of NEON's 32 registers.
constexpr int kSumLanes = 64;
constexpr int kSums = kSumLanes / Vec::kLanes;

// The tree over the 64: (i, i + 16, i + 32, i + 48) by twos, then halves, down to one.
inline __attribute__((always_inline)) float add_up(const Vec (&sums)[kSums]) {
  constexpr int kQuarter = kSums / 4;
  Vec tree[kQuarter];
#pragma GCC unroll 4
  for (int i = 0; i < kQuarter; ++i) {
    tree[i] = (sums[i] + sums[i + kQuarter]) + (sums[i + 2 * kQuarter] + sums[i + 3 * kQuarter]);
  }
#pragma GCC unroll 4
  for (int half = kQuarter / 2; half > 0; half /= 2) {
#pragma GCC unroll 2
    for (int i = 0; i < half; ++i) tree[i] = tree[i] + tree[i + half];
  }
  return reduce_add(tree[0]);
}

// The sum of term(first element, count, partial sum), which returns the partial sum with its elements added. A term
// adds nothing (+0, which leaves a sum that began with +0 as it is) for lanes past `count`, so that how far a vector
// reaches beyond the row does not show.
template <class Name, class Term>
inline __attribute__((always_inline)) float sum_over(const Name& name, int64_t count, const Term& term) {
  constexpr int kLanes = Vec::kLanes;
  Vec sums[kSums];
#pragma GCC unroll 16
  for (int u = 0; u < kSums; ++u) sums[u] = zero();
  int64_t c = 0;
  for (; c + kSumLanes <= count; c += kSumLanes) {
#pragma GCC unroll 16
    for (int u = 0; u < kSums; ++u) {
      sums[u] = term(c + u * kLanes, kLanes, sums[u]);
      // The second half's loads stay behind the first half: beside 16 sums NEON has registers for no more.
      if (u == kSums / 2 - 1) asm volatile("" ::: "memory");
    }
    sums[kSums - 1] = name(sums[kSums - 1]);
  }
  const int64_t left = count - c;
#pragma GCC unroll 16
  for (int u = 0; u < kSums; ++u) {
    const int64_t here = left - u * kLanes;
    if (here > 0) sums[u] = term(c + u * kLanes, static_cast<int>(here < kLanes ? here : kLanes), sums[u]);
  }
  return add_up(sums);
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
