#define SQUEEZEBERT_ISA scalar_h
#define SQUEEZEBERT_ISA_NAME "scalar_h"

#include "simd/scalar_h.h"

#include "isa/kernels_for_isa.inc"
