// NEON with float16 panels for cores without float16 arithmetic (before Armv8.2): widened as they are loaded, products
// and sums are float32. The compiler's inner loop: it saves memory, and its conversions cost some of the rate. Included
// once, by isa/neon_h.cc.
#pragma once

#include "simd/neon_half.h"

namespace squeezebert::SQUEEZEBERT_ISA {

// 16 accumulators + 8 weights + a row, as in neon_steps.h.
struct Tile {
  static constexpr int kRows = 8;
  static constexpr int kVectors = 2;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr int kDepth = 4;
  static constexpr bool kOwnSteps = false;
};
using Product = Vec;

}  // namespace squeezebert::SQUEEZEBERT_ISA
