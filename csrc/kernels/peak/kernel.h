// peak: the most float32 operations per second this ISA can do on one core, measured by independent fused multiply-adds
// on registers. It is the denominator of every share of peak that we report.
#pragma once

#include "kernels/kernels.h"

namespace squeezebert::SQUEEZEBERT_ISA {

// As many accumulators as the micro-kernel's tile has, enough to hide any FMA's latency.
inline double peak(int64_t rounds) {
  constexpr int kSums = Tile::kRows * Tile::kVectors;
  constexpr int kRepeats = 8;
  Vec sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = broadcast(1.0f + static_cast<float>(i));
  Vec x = broadcast(0.999f);
  Vec y = broadcast(0.001f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
#pragma GCC unroll 32
      for (int i = 0; i < kSums; ++i) sums[i] = fma(sums[i], x, y);
    }
  }
  Vec total = zero();
  for (int i = 0; i < kSums; ++i) total = total + sums[i];
  volatile float used = reduce_add(total);
  (void)used;
  return 2.0 * kSums * Vec::kLanes * kRepeats * static_cast<double>(rounds);
}

}  // namespace squeezebert::SQUEEZEBERT_ISA
