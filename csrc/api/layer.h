// An encoder layer of the C API, checked and decoded.
#pragma once

#include "api/check.h"

namespace squeezebert {

// Errors name the member. size: what struct_size has to be. channels: of its input and output; 0: as its query says.
squeezebert_status read_layer(const squeezebert_layer& from, size_t size, int64_t channels, Layer* to);

// That the output has none of its weights, biases and layer norms.
squeezebert_status check_apart(const Matrix& output, const squeezebert_layer& from, const Layer& layer);

}  // namespace squeezebert
