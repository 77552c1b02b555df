// peak: the most operations per second that a product could do on one core, measured by independent fused
// multiply-adds on registers. It is the denominator of every share of peak that we report.
#pragma once

#include <stdint.h>

#include "products/tile.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

inline void splat(Vec& x, float value) { x = broadcast(value); }

// As many accumulators as the micro-kernel's tile has, enough to hide any FMA's latency.
inline double peak(int64_t rounds) {
  constexpr int kSums = kQuantized ? Tile::kRows * Tile::kVectors : Tile::kRows * Tile::kColumns / Multiplied::kLanes;
  constexpr int kRepeats = 8;
  Multiplied sums[kSums];
  for (int i = 0; i < kSums; ++i) splat(sums[i], 1.0f + static_cast<float>(i));
  Multiplied x, y, total;
  splat(x, 0.999f);
  splat(y, 0.001f);
  splat(total, 0.0f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
#pragma GCC unroll 32
      for (int i = 0; i < kSums; ++i) sums[i] = fma(sums[i], x, y);
    }
  }
  for (int i = 0; i < kSums; ++i) total = total + sums[i];
  volatile float used = reduce_add(total);
  (void)used;
  return 2.0 * kSums * Multiplied::kLanes * kRepeats * static_cast<double>(rounds);
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
