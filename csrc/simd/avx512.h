// avx512 with float32 panels. Included once, by isa/avx512.cc.
#pragma once

#include "simd/avx512_vector.h"

#include "simd/float_panels.h"
