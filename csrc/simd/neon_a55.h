// NEON for cores that issue in order (Cortex-A53, A55, A510 and their kin): the same vector, tile and bits as neon.h;
// only the order of the inner loop differs. Included once, by isa/neon_a55.cc.
#pragma once

#include "simd/neon_vector.h"

#include "simd/float_panels.h"

#define SQUEEZEBERT_NEON_STEPS InOrder
#include "simd/neon_steps.h"
