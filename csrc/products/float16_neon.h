// float16 on NEON without float16 arithmetic (before Armv8.2): widened as they are loaded; products and sums are
// float32. It saves memory, and its conversions cost some of the rate.
#pragma once

#define SQUEEZEBERT_NEON_ORDER OutOfOrder
#include "products/neon_sums.h"
#include "simd/half.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

using Element = Half;

}  // namespace squeezebert::SQUEEZEBERT_UNIT
