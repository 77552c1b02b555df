#define SQUEEZEBERT_ISA neon_h
#define SQUEEZEBERT_ISA_NAME "neon_h"

#include "simd/neon_h.h"

#include "isa/kernels_for_isa.inc"
