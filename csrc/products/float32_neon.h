// float32 on NEON, for cores that reorder instructions.
#pragma once

#define SQUEEZEBERT_NEON_ORDER OutOfOrder
#include "products/neon_sums.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

using Element = float;

}  // namespace squeezebert::SQUEEZEBERT_UNIT
