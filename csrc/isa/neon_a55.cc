#define SQUEEZEBERT_ISA neon_a55
#define SQUEEZEBERT_ISA_NAME "neon_a55"

#include "simd/neon_a55.h"

#include "isa/kernels_for_isa.inc"
