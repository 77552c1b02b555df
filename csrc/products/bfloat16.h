// bfloat16 on x86 and scalar without bfloat16 arithmetic: half of the bytes, widened as they are loaded; products and
// sums are float32.
#pragma once

#include "products/vector_sums.h"
#include "simd/bfloat16.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

using Element = BFloat16;
using Left = float;
using Multiplied = Vec;

}  // namespace squeezebert::SQUEEZEBERT_UNIT
