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

// What the layer's attention is; its queries begin at query_offsets.
squeezebert_attention_shape attention_shape(const Encoder& encoder, const Layer& layer, const int32_t* query_offsets);

squeezebert_status run_encoder(Context& context, const Encoder& encoder, Rows x, MutableRows y);

}  // namespace squeezebert
