// A float16 in memory. A type of its own, not the compiler's _Float16, so that nothing is converted unless a function
// of the vector type says so: load(const Half*), store(Half*, Vec), store_one(Half*, float), to nearest, ties to even.
#pragma once

#include <stdint.h>

#include "simd/unit.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

struct Half {
  uint16_t bits;  // IEEE 754 binary16
};

}  // namespace squeezebert::SQUEEZEBERT_UNIT
