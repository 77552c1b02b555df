// The vector type of the translation unit. simd/scalar.h is its specification.
#pragma once

#include "simd/unit.h"

#include SQUEEZEBERT_VECTOR
