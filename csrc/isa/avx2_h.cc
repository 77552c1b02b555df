#define SQUEEZEBERT_ISA avx2_h
#define SQUEEZEBERT_ISA_NAME "avx2_h"

#include "simd/avx2_h.h"

#include "isa/kernels_for_isa.inc"
