// The C API: the encoder.
#include "engine/encoder.h"

#include <cinttypes>
#include <cstdio>
#include <new>

#include "api/call.h"
#include "api/check.h"
#include "api/layer.h"

using namespace squeezebert;

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
  int64_t channels = 0;
  const auto layer_at = [&](int64_t l) -> const squeezebert_layer& {
    return *reinterpret_cast<const squeezebert_layer*>(reinterpret_cast<const char*>(layers) +
                                                       static_cast<size_t>(l) * size);
  };
  for (int64_t l = 0; l < layer_count; ++l) {
    const squeezebert_status status = read_layer(layer_at(l), size, channels, new (&decoded[l]) Layer);
    channels = decoded[0].query.weight.shape.in_channels;
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
  const int64_t keys = longest(shape->cu_seqlens, shape->sequences);
  for (int64_t l = 0; l < layer_count; ++l) {
    SQUEEZEBERT_TRY(check_formats(decoded[l].key_format, decoded[l].value_format, channels / shape->heads, keys));
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
