// NEON with float32 panels, for cores that reorder instructions. Included once, by isa/neon.cc.
#pragma once

#include "simd/neon_vector.h"

#include "simd/float_panels.h"

#define SQUEEZEBERT_NEON_STEPS OutOfOrder
#include "simd/neon_steps.h"
