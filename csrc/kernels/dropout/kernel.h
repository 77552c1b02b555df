// dropout: y = x * factor, where the factor is 0 with probability threshold / 2^32, else `scale`.
//
// Random numbers have no state: each is a function of the seed and of where the value stands (site, sequence, row of
// the sequence, channel), so that the backward pass finds the factors of the forward pass again, whatever the threads,
// the batch and the instruction set. A 64-bit key for the row, of three rounds of SplitMix64's finalizer (Steele, Lea
// and Flood 2014, OOPSLA), then for each channel 32-bit arithmetic, which every vector unit has: a Weyl sequence from
// one half of the key, through a finalizer of two multiplications ("lowbias32", C. Wellons 2018) into which the other
// half enters, so that rows whose sequences meet differ all the same. Philox would take ten multiplications of twice
// the width for each number.
#pragma once

#include <stdint.h>

#include "kernels/rows.h"
#include "simd/row.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

inline uint64_t mix(uint64_t key, uint64_t value) {
  uint64_t z = key + (value + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

inline uint64_t row_key(const Dropout& d, int64_t row) {
  const uint64_t key = mix(mix(d.seed, d.site), static_cast<uint64_t>(d.sequence));
  return mix(key, static_cast<uint64_t>(d.first_row + row));
}

// Those of `count` channels from `first` on. Plain loops over integers, of which the compiler makes vectors.
inline void dropout_factors(const Dropout& d, uint64_t key, int64_t first, int64_t count, float* factors) {
  const auto low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  const uint32_t begin = low + static_cast<uint32_t>(first) * 0x9e3779b9u;
  const uint32_t threshold = d.threshold;
  const float scale = d.scale;
  for (int64_t c = 0; c < count; ++c) {
    uint32_t x = begin + static_cast<uint32_t>(c) * 0x9e3779b9u;
    x = (x ^ x >> 16) * 0x21f0aaadu;
    x = ((x ^ x >> 15) + high) * 0xd35a2d97u;
    x ^= x >> 15;
    factors[c] = x >= threshold ? scale : 0.0f;
  }
}

inline void dropout(const DropoutArgs& a) {
  constexpr int64_t kTogether = 256;
  float factors[kTogether];
  for (int64_t r = 0; r < a.rows; ++r) {
    const uint64_t key = row_key(a.dropout, r);
    for (int64_t first = 0; first < a.channels; first += kTogether) {
      const int64_t left = a.channels - first, count = left < kTogether ? left : kTogether;
      const float* x = a.x + r * a.x_stride + first;
      float* y = a.y + r * a.y_stride + first;
      dropout_factors(a.dropout, key, first, count, factors);
      for_each_vector(count, [&](int64_t c, int n) { store_some(y + c, load_some(x + c, n) * load(factors + c), n); });
    }
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
