// float16 on NEON without float16 arithmetic (before Armv8.2): widened as they are loaded; products and sums are
// float32. It saves memory, and its conversions cost some of the rate.
#pragma once

#include "products/neon_sums.h"
#include "simd/half.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

using Element = Half;
using Left = float;
using Multiplied = Vec;

template <int kRows>
inline __attribute__((always_inline)) void add_products(Vec (&sums)[kRows][Tile::kVectors], const float* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  add_products_in<OutOfOrder>(sums, x, stride, panel, depth, ahead, ahead_step);
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
