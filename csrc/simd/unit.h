// Every translation unit of kernels/ and products/ is compiled with flags of its own, so everything in it lives in a
// namespace of its own, squeezebert::SQUEEZEBERT_UNIT. The build gives the name, that of a row of isa/list.inc, and
// SQUEEZEBERT_VECTOR, the vector type's header. An editor that opens a header by itself sees it for `scalar`.
#pragma once

#if !defined(SQUEEZEBERT_UNIT)
#define SQUEEZEBERT_UNIT scalar
#define SQUEEZEBERT_VECTOR "simd/scalar.h"
#define SQUEEZEBERT_PRODUCT "products/float32.h"
#endif
