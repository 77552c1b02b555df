// float32 on NEON, for cores that issue in order (Cortex-A53, A55, A510 and their kin): the tile and bits of
// float32_neon, whose inner loop differs in its order only.
#pragma once

#include "products/neon_sums.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

using Element = float;
using Left = float;
using Multiplied = Vec;
inline void store_one(float* p, float x) { *p = x; }

template <int kRows>
inline __attribute__((always_inline)) void add_products(Vec (&sums)[kRows][Tile::kVectors], const float* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  add_products_in<InOrder>(sums, x, stride, panel, depth, ahead, ahead_step);
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
