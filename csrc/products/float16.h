// float16 on x86 and scalar: half of the bytes, widened as they are loaded; products and sums are float32.
#pragma once

#include "products/vector_sums.h"
#include "simd/half.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

using Element = Half;
using Left = float;
using Multiplied = Vec;

}  // namespace squeezebert::SQUEEZEBERT_UNIT
