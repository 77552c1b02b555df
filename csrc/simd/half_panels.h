// Panels of float16: half the memory of a weight, and half the bytes that a product streams. A type of its own, not
// the compiler's _Float16, so that nothing is converted unless a function here or in simd/<name>_h.h says so.
#pragma once

#include <stdint.h>

namespace squeezebert::SQUEEZEBERT_ISA {

struct Half {
  uint16_t bits;  // IEEE 754 binary16
};
using Element = Half;

}  // namespace squeezebert::SQUEEZEBERT_ISA
