// The encoder: both regions of every layer.
#pragma once

#include "engine/steps.h"

namespace squeezebert {

struct Encoder {
  squeezebert_encoder_shape shape{};
  int64_t layer_count = 0;
  int64_t channels = 0;
  const squeezebert_mask* mask = nullptr;
  const Layer* layers = nullptr;
};

squeezebert_status run_encoder(Context& context, const Encoder& encoder, Rows x, MutableRows y);

}  // namespace squeezebert
