// scalar with float32 panels. Included once, by isa/scalar.cc.
#pragma once

#include "simd/scalar_vector.h"

#include "simd/float_panels.h"
