// Whether an output shares memory with an input.
#pragma once

#include <cstdint>

namespace squeezebert {

// A matrix that the caller owns, and the name of its argument.
struct Matrix {
  const char* name = nullptr;
  const float* data = nullptr;
  int64_t rows = 0;
  int64_t channels = 0;
  int64_t stride = 0;
};

// Whether a float of one is a float of the other: exact, so that columns of one larger matrix are apart. Both have
// strides that the API accepts.
bool overlap(const Matrix& a, const Matrix& b);

}  // namespace squeezebert
