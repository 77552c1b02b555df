#define SQUEEZEBERT_ISA neon
#define SQUEEZEBERT_ISA_NAME "neon"

#include "simd/neon.h"

#include "isa/kernels_for_isa.inc"
