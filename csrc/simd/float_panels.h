// Panels of float32: what follows a vector type where weights are multiplied as they came.
#pragma once

namespace squeezebert::SQUEEZEBERT_ISA {

using Element = float;
using Product = Vec;  // what `peak` multiplies
inline void store_one(float* p, float x) { *p = x; }

}  // namespace squeezebert::SQUEEZEBERT_ISA
