#define SQUEEZEBERT_ISA avx2
#define SQUEEZEBERT_ISA_NAME "avx2"

#include "simd/avx2.h"

#include "isa/kernels_for_isa.inc"
