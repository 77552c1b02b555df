// Four bytes of one of three rows, to every lane. One statement, so that the address is base, base + stride or base + 2
// * stride in the instruction: the compiler makes additions of them, on the very ports that multiply.
#pragma once

#include <stddef.h>

#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// stride: bytes. What stands there must have been written by here: the compiler does not see that it is read.
inline __attribute__((always_inline)) Ints broadcast_row(const void* base, ptrdiff_t stride, int row) {
  Ints x;
  if (row == 0) asm volatile("vpbroadcastd (%1), %0" : "=v"(x.v) : "r"(base));
  if (row == 1) asm volatile("vpbroadcastd (%1,%2), %0" : "=v"(x.v) : "r"(base), "r"(stride));
  if (row == 2) asm volatile("vpbroadcastd (%1,%2,2), %0" : "=v"(x.v) : "r"(base), "r"(stride));
  return x;
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
