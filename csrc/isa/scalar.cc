#define SQUEEZEBERT_ISA scalar
#define SQUEEZEBERT_ISA_NAME "scalar"

#include "simd/scalar.h"

#include "isa/kernels_for_isa.inc"
