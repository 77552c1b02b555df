#define SQUEEZEBERT_ISA avx512_h
#define SQUEEZEBERT_ISA_NAME "avx512_h"

#include "simd/avx512_h.h"

#include "isa/kernels_for_isa.inc"
