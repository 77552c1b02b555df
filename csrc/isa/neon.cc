#define SQUEEZEBERT_ISA neon
#define SQUEEZEBERT_ISA_NAME "neon"
#define SQUEEZEBERT_ISA_ID 4

#include "simd/neon.h"

#include "isa/kernels_for_isa.inc"
