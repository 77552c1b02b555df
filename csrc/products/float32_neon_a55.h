// float32 on NEON, for cores that issue in order (Cortex-A53, A55, A510 and their kin): the tile and bits of
// float32_neon, whose inner loop differs in its order only.
#pragma once

#define SQUEEZEBERT_NEON_ORDER InOrder
#include "products/neon_sums.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

using Element = float;

}  // namespace squeezebert::SQUEEZEBERT_UNIT
