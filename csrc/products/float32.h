// float32 on x86 and scalar: weights are multiplied as they came.
#pragma once

#include "products/vector_sums.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

using Element = float;   // of a panel
using Left = float;      // of a row
using Multiplied = Vec;  // what `peak` multiplies
inline void store_one(float* p, float x) { *p = x; }

}  // namespace squeezebert::SQUEEZEBERT_UNIT
