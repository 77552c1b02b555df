#define SQUEEZEBERT_ISA neon_hp
#define SQUEEZEBERT_ISA_NAME "neon_hp"

#include "simd/neon_hp.h"

#include "isa/kernels_for_isa.inc"
