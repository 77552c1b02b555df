#include "api/layer.h"

namespace squeezebert {

squeezebert_status read_layer(const squeezebert_layer& from, size_t size, int64_t channels, Layer* to) {
  SQUEEZEBERT_TRY(check_struct("squeezebert_layer", &from, sizeof from));
  if (from.struct_size != size) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "squeezebert_layer: expected the first layer's struct_size, %zu, got %zu",
                size, from.struct_size);
  }
  SQUEEZEBERT_TRY(read_linear("query", &from.query, channels, channels, &to->query));
  if (channels == 0) {
    channels = to->query.weight.shape.in_channels;
    SQUEEZEBERT_TRY(read_linear("query", &from.query, channels, channels, &to->query));
  }
  SQUEEZEBERT_TRY(read_linear("key", &from.key, channels, channels, &to->key));
  SQUEEZEBERT_TRY(read_linear("value", &from.value, channels, channels, &to->value));
  SQUEEZEBERT_TRY(read_linear("post_attention", &from.post_attention, channels, channels, &to->post_attention));
  SQUEEZEBERT_TRY(read_linear("intermediate", &from.intermediate, channels, 0, &to->intermediate));
  const int64_t wide = to->intermediate.weight.shape.out_channels;
  SQUEEZEBERT_TRY(read_linear("output", &from.output, wide, channels, &to->output));
  SQUEEZEBERT_TRY(check_layer_norm("post_attention_layer_norm", &from.post_attention_layer_norm));
  SQUEEZEBERT_TRY(check_layer_norm("output_layer_norm", &from.output_layer_norm));
  SQUEEZEBERT_TRY(check_format("key_format", from.key_format));
  SQUEEZEBERT_TRY(check_format("value_format", from.value_format));
  to->key_format = from.key_format;
  to->value_format = from.value_format;
  to->post_attention_norm = from.post_attention_layer_norm;
  to->output_norm = from.output_layer_norm;
  return SQUEEZEBERT_OK;
}

squeezebert_status check_apart(const Matrix& output, const squeezebert_layer& from, const Layer& layer) {
  const int64_t channels = layer.query.weight.shape.in_channels;
  SQUEEZEBERT_TRY(check_apart(output, "query", from.query, layer.query));
  SQUEEZEBERT_TRY(check_apart(output, "key", from.key, layer.key));
  SQUEEZEBERT_TRY(check_apart(output, "value", from.value, layer.value));
  SQUEEZEBERT_TRY(check_apart(output, "post_attention", from.post_attention, layer.post_attention));
  SQUEEZEBERT_TRY(check_apart(output, "post_attention_layer_norm", from.post_attention_layer_norm, channels));
  SQUEEZEBERT_TRY(check_apart(output, "intermediate", from.intermediate, layer.intermediate));
  SQUEEZEBERT_TRY(check_apart(output, "output", from.output, layer.output));
  return check_apart(output, "output_layer_norm", from.output_layer_norm, channels);
}

}  // namespace squeezebert
