// A bfloat16 in memory: the upper half of a float32. A type of its own, so that nothing is converted unless a function
// of the vector type says so: load(const BFloat16*), store(BFloat16*, Vec), store_one(BFloat16*, float), to nearest,
// ties to even.
#pragma once

#include <stdint.h>
#include <string.h>

#include "simd/unit.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

struct BFloat16 {
  uint16_t bits;  // sign, 8 bits of exponent, 7 of mantissa
};

inline void store_one(BFloat16* p, float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  // Adds half of the last place, less one where that is even. A NaN is made quiet, so that its mantissa is not lost.
  bits = x == x ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000;
  p->bits = static_cast<uint16_t>(bits >> 16);
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
