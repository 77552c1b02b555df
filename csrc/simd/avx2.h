// avx2 with float32 panels. Included once, by isa/avx2.cc.
#pragma once

#include "simd/avx2_vector.h"

#include "simd/float_panels.h"
