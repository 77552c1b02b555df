#define SQUEEZEBERT_ISA scalar
#define SQUEEZEBERT_ISA_NAME "scalar"
#define SQUEEZEBERT_ISA_ID 1

#include "simd/scalar.h"

#include "isa/kernels_for_isa.inc"
