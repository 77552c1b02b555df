#define SQUEEZEBERT_ISA avx512
#define SQUEEZEBERT_ISA_NAME "avx512"

#include "simd/avx512.h"

#include "isa/kernels_for_isa.inc"
