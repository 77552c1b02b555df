// bfloat16 on NEON without bfloat16 arithmetic: widened as they are loaded; products and sums are float32. It saves
// memory, and its conversions cost some of the rate.
#pragma once

#define SQUEEZEBERT_NEON_ORDER OutOfOrder
#include "products/neon_sums.h"
#include "simd/bfloat16.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

using Element = BFloat16;

}  // namespace squeezebert::SQUEEZEBERT_UNIT
