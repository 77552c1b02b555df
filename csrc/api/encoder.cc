// The C API: the encoder.
#include "engine/encoder.h"

#include <cinttypes>
#include <cstdio>
#include <new>

#include "api/call.h"
#include "api/check.h"

using namespace squeezebert;

namespace {

// `size` is what the first layer says of itself, and how far apart they are.
squeezebert_status read_layer(const squeezebert_layer& from, size_t size, int64_t channels, Layer* to) {
  SQUEEZEBERT_TRY(check_struct("squeezebert_layer", &from, sizeof from));
  if (from.struct_size != size) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "squeezebert_layer: expected the first layer's struct_size, %zu, got %zu",
                size, from.struct_size);
  }
  SQUEEZEBERT_TRY(read_linear("query", &from.query, channels, channels, &to->query));
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
  SQUEEZEBERT_TRY(check_apart(output, "query", from.query, layer.query));
  SQUEEZEBERT_TRY(check_apart(output, "key", from.key, layer.key));
  SQUEEZEBERT_TRY(check_apart(output, "value", from.value, layer.value));
  SQUEEZEBERT_TRY(check_apart(output, "post_attention", from.post_attention, layer.post_attention));
  SQUEEZEBERT_TRY(check_apart(output, "post_attention_layer_norm", from.post_attention_layer_norm));
  SQUEEZEBERT_TRY(check_apart(output, "intermediate", from.intermediate, layer.intermediate));
  SQUEEZEBERT_TRY(check_apart(output, "output", from.output, layer.output));
  return check_apart(output, "output_layer_norm", from.output_layer_norm);
}

}  // namespace

extern "C" squeezebert_status squeezebert_encoder(squeezebert_context* context, const squeezebert_encoder_shape* shape,
                                                  const squeezebert_layer* layers, int64_t layer_count,
                                                  const float* input, int64_t input_stride,
                                                  const squeezebert_mask* mask, float* output, int64_t output_stride) {
  const Call call(context);
  SQUEEZEBERT_TRY(call.begun());
  SQUEEZEBERT_TRY(check_struct("shape", shape, sizeof *shape));
  SQUEEZEBERT_TRY(check_offsets("cu_seqlens", shape->sequences, shape->cu_seqlens));
  if (shape->first_token_only != 0 && shape->first_token_only != 1) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "first_token_only: expected 0 or 1, got %" PRId32,
                shape->first_token_only);
  }
  if (layer_count < 1 || layer_count > 1 << 20) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "layers: expected 1 to 2^20 layers, got %" PRId64, layer_count);
  }
  if (!layers) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "layers: expected 1 to 2^20 layers, got NULL");
  auto* decoded = static_cast<Layer*>(context->layers.reserve(Size(layer_count) * sizeof(Layer)));
  if (!decoded) return SQUEEZEBERT_OUT_OF_MEMORY;
  SQUEEZEBERT_TRY(check_struct("layer 0: squeezebert_layer", layers, sizeof *layers));
  const size_t size = layers->struct_size;
  Linear first;
  SQUEEZEBERT_TRY(read_linear("layer 0: query", &layers->query, 0, 0, &first));
  const int64_t channels = first.weight.shape.in_channels;
  const auto layer_at = [&](int64_t l) -> const squeezebert_layer& {
    return *reinterpret_cast<const squeezebert_layer*>(reinterpret_cast<const char*>(layers) +
                                                       static_cast<size_t>(l) * size);
  };
  for (int64_t l = 0; l < layer_count; ++l) {
    const squeezebert_status status = read_layer(layer_at(l), size, channels, new (&decoded[l]) Layer);
    if (status != SQUEEZEBERT_OK) {
      char text[512];
      std::snprintf(text, sizeof text, "%s", last_error());
      return fail(status, "layer %" PRId64 ": %s", l, text);
    }
  }
  if (shape->heads < 1 || channels % shape->heads != 0) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "heads: expected a divisor of %" PRId64 " channels, got %" PRId64,
                channels, shape->heads);
  }
  const int64_t tokens = shape->cu_seqlens[shape->sequences];
  int64_t output_rows = tokens;
  if (shape->first_token_only) {
    output_rows = shape->sequences;
    for (int64_t s = 0; s < shape->sequences; ++s) {
      if (shape->cu_seqlens[s] == shape->cu_seqlens[s + 1]) {
        return fail(SQUEEZEBERT_INVALID_ARGUMENT,
                    "cu_seqlens: first_token_only expects a token in every sequence, got none in sequence %" PRId64, s);
      }
    }
  }
  const Matrix in = {"input", input, tokens, channels, input_stride};
  const Matrix out = {"output", output, output_rows, channels, output_stride};
  const bool in_place = output == input && output_stride == input_stride && !shape->first_token_only;
  SQUEEZEBERT_TRY(in_place ? check_matrix(in) : check_matrices({in}, out));
  for (int64_t l = 0; l < layer_count; ++l) SQUEEZEBERT_TRY(check_apart(out, layer_at(l), decoded[l]));
  Encoder e;
  e.shape = *shape;
  e.layer_count = layer_count;
  e.channels = channels;
  e.mask = mask;
  e.layers = decoded;
  SQUEEZEBERT_TRY(check_mask(mask, attention_shape(e, decoded[0], shape->cu_seqlens), out));
  SQUEEZEBERT_TRY(run_encoder(*context, e, {input, input_stride}, {output, output_stride}));
  return call.ended();
}
