// The encoder: every step of every layer, and the single operators that are made of more than one step.
#pragma once

#include "engine/layers.h"

namespace squeezebert {

struct QkvAttention {
  const Linear* query = nullptr;
  const Linear* key = nullptr;
  const Linear* value = nullptr;
  squeezebert_attention_shape shape{};
  const squeezebert_mask* mask = nullptr;
};

struct Layer {
  Linear query, key, value, post_attention, intermediate, output;
  squeezebert_layer_norm post_attention_norm{};
  squeezebert_layer_norm output_norm{};
};

squeezebert_status attention(Context& context, const Kernels& kernels, const Attention& attention);
squeezebert_status qkv_attention(Context& context, const QkvAttention& attention, Rows x, MutableRows y);
squeezebert_status ffn(Context& context, int64_t tokens, const Ffn& ffn, Rows x, MutableRows y);

struct Encoder {
  squeezebert_encoder_shape shape{};
  int64_t layer_count = 0;
  int64_t channels = 0;
  float scale = 1.0f;
  const squeezebert_mask* mask = nullptr;
  const Layer* layers = nullptr;
};

squeezebert_status encoder(Context& context, const Encoder& encoder, Rows x, MutableRows y);

}  // namespace squeezebert
