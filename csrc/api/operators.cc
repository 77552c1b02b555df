// The C API: the single operators. Each checks its arguments and runs one or two of the engine's steps.
#include <algorithm>
#include <cinttypes>

#include "api/call.h"
#include "api/check.h"

using namespace squeezebert;

namespace {

// `floats` of the context's working memory; null, with the error set, when there is none to be had.
float* memory_for(squeezebert_context* context, Size floats) {
  return static_cast<float*>(context->working.reserve(floats * sizeof(float)));
}

// The residual, if any, and the layer norm after it.
struct AddLayerNorm {
  const float* residual;
  int64_t residual_stride;
  const squeezebert_layer_norm* norm;
};

squeezebert_status conv1x1(squeezebert_context* context, int64_t tokens, const float* input, int64_t input_stride,
                           const squeezebert_linear* layer, bool gelu, const AddLayerNorm* after, float* output,
                           int64_t output_stride) {
  const Call call(context);
  SQUEEZEBERT_TRY(call.begun());
  SQUEEZEBERT_TRY(check_tokens(tokens));
  if (after) SQUEEZEBERT_TRY(check_layer_norm("layer_norm", after->norm));
  Linear linear;
  SQUEEZEBERT_TRY(read_linear("layer", layer, 0, 0, &linear));
  const squeezebert_conv_shape& shape = linear.weight.shape;
  const Matrix in = {"input", input, tokens, shape.in_channels, input_stride};
  const Matrix out = {"output", output, tokens, shape.out_channels, output_stride};
  SQUEEZEBERT_TRY(check_matrices({in}, out));
  SQUEEZEBERT_TRY(check_apart(out, "layer", *layer, linear));
  Rows residual;
  if (after) {
    SQUEEZEBERT_TRY(check_apart(out, "layer_norm", *after->norm, shape.out_channels));
    SQUEEZEBERT_TRY(
        check_matrices({{"residual", after->residual, tokens, shape.out_channels, after->residual_stride}}, out));
    residual = {after->residual, after->residual_stride};
  }
  float* const memory = memory_for(context, conv_floats(context->workers, tokens, {&linear}));
  if (!memory) return SQUEEZEBERT_OUT_OF_MEMORY;
  const ConvStep step{
      .layer = &linear, .x = {input, input_stride}, .y = {output, output_stride}, .residual = residual, .gelu = gelu};
  run_conv(context->workers, tokens, {step}, memory);
  if (after) run_layer_norm(context->workers, tokens, shape.out_channels, {output, output_stride}, *after->norm);
  return call.ended();
}

squeezebert_status check_ids(const char* name, const int64_t* ids, int64_t tokens, int64_t rows) {
  if (tokens > 0 && !ids) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected %" PRId64 " of them, got NULL", name, tokens);
  }
  SQUEEZEBERT_TRY(check_alignment(name, ids, alignof(int64_t)));
  for (int64_t t = 0; t < tokens; ++t) {
    if (ids[t] < 0 || ids[t] >= rows) {
      return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected 0 to %" PRId64 ", got %" PRId64 " at token %" PRId64,
                  name, rows - 1, ids[t], t);
    }
  }
  return SQUEEZEBERT_OK;
}

}  // namespace

extern "C" {

squeezebert_status squeezebert_grouped_conv1x1(squeezebert_context* context, int64_t tokens, const float* input,
                                               int64_t input_stride, const squeezebert_linear* layer, float* output,
                                               int64_t output_stride) {
  return conv1x1(context, tokens, input, input_stride, layer, false, nullptr, output, output_stride);
}

squeezebert_status squeezebert_grouped_conv1x1_gelu(squeezebert_context* context, int64_t tokens, const float* input,
                                                    int64_t input_stride, const squeezebert_linear* layer,
                                                    float* output, int64_t output_stride) {
  return conv1x1(context, tokens, input, input_stride, layer, true, nullptr, output, output_stride);
}

squeezebert_status squeezebert_grouped_conv1x1_add_layer_norm(squeezebert_context* context, int64_t tokens,
                                                              const float* input, int64_t input_stride,
                                                              const squeezebert_linear* layer, const float* residual,
                                                              int64_t residual_stride,
                                                              const squeezebert_layer_norm* layer_norm, float* output,
                                                              int64_t output_stride) {
  const AddLayerNorm after = {residual, residual_stride, layer_norm};
  return conv1x1(context, tokens, input, input_stride, layer, false, &after, output, output_stride);
}

squeezebert_status squeezebert_grouped_conv1d(squeezebert_context* context, int64_t sequences,
                                              const int32_t* cu_seqlens, const float* input, int64_t input_stride,
                                              const squeezebert_linear* layer, float* output, int64_t output_stride) {
  const Call call(context);
  SQUEEZEBERT_TRY(call.begun());
  SQUEEZEBERT_TRY(check_offsets("cu_seqlens", sequences, cu_seqlens));
  Linear linear;
  SQUEEZEBERT_TRY(read_linear("layer", layer, 0, 0, &linear, true));
  const int64_t tokens = cu_seqlens[sequences];
  const squeezebert_conv_shape& shape = linear.weight.shape;
  const Matrix out = {"output", output, tokens, shape.out_channels, output_stride};
  SQUEEZEBERT_TRY(check_matrices({{"input", input, tokens, shape.in_channels, input_stride}}, out));
  SQUEEZEBERT_TRY(check_apart(out, "layer", *layer, linear));
  float* const memory = memory_for(context, conv1d_floats(context->workers, sequences, cu_seqlens, linear));
  if (!memory) return SQUEEZEBERT_OUT_OF_MEMORY;
  run_conv1d(context->workers, sequences, cu_seqlens, linear, {input, input_stride}, {output, output_stride}, memory);
  return call.ended();
}

squeezebert_status squeezebert_attention(squeezebert_context* context, const squeezebert_attention_shape* shape,
                                         const float* query, int64_t query_stride, const float* key, int64_t key_stride,
                                         const float* value, int64_t value_stride, const squeezebert_mask* mask,
                                         float* output, int64_t output_stride) {
  const Call call(context);
  SQUEEZEBERT_TRY(call.begun());
  SQUEEZEBERT_TRY(check_struct("shape", shape, sizeof *shape));
  SQUEEZEBERT_TRY(check_offsets("query_offsets", shape->sequences, shape->query_offsets));
  SQUEEZEBERT_TRY(check_offsets("key_offsets", shape->sequences, shape->key_offsets));
  SQUEEZEBERT_TRY(check_heads(shape->heads, shape->head_size));
  SQUEEZEBERT_TRY(check_scale(shape->scale));
  SQUEEZEBERT_TRY(check_formats(shape->key_format, shape->value_format, shape->head_size,
                                longest(shape->key_offsets, shape->sequences)));
  const int64_t channels = shape->heads * shape->head_size;
  const int64_t queries = shape->query_offsets[shape->sequences];
  const int64_t keys = shape->key_offsets[shape->sequences];
  const Matrix out = {"output", output, queries, channels, output_stride};
  SQUEEZEBERT_TRY(check_matrices({{"query", query, queries, channels, query_stride},
                                  {"key", key, keys, channels, key_stride},
                                  {"value", value, keys, channels, value_stride}},
                                 out));
  SQUEEZEBERT_TRY(check_mask(mask, *shape, out));
  float* const memory = memory_for(context, attention_floats(context->workers, *shape));
  if (!memory) return SQUEEZEBERT_OUT_OF_MEMORY;
  run_attention(context->workers, {*shape, mask}, {query, query_stride}, {key, key_stride}, {value, value_stride},
                {output, output_stride}, memory);
  return call.ended();
}

squeezebert_status squeezebert_grouped_qkv_attention(squeezebert_context* context,
                                                     const squeezebert_attention_shape* shape, const float* input,
                                                     int64_t input_stride, const squeezebert_linear* query,
                                                     const squeezebert_linear* key, const squeezebert_linear* value,
                                                     const squeezebert_mask* mask, float* output,
                                                     int64_t output_stride) {
  const Call call(context);
  SQUEEZEBERT_TRY(call.begun());
  SQUEEZEBERT_TRY(check_struct("shape", shape, sizeof *shape));
  SQUEEZEBERT_TRY(check_offsets("query_offsets", shape->sequences, shape->query_offsets));
  SQUEEZEBERT_TRY(check_offsets("key_offsets", shape->sequences, shape->key_offsets));
  SQUEEZEBERT_TRY(check_heads(shape->heads, shape->head_size));
  SQUEEZEBERT_TRY(check_scale(shape->scale));
  SQUEEZEBERT_TRY(check_formats(shape->key_format, shape->value_format, shape->head_size,
                                longest(shape->key_offsets, shape->sequences)));
  if (!std::equal(shape->query_offsets, shape->query_offsets + shape->sequences + 1, shape->key_offsets)) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "key_offsets: expected the same offsets as query_offsets, got others");
  }
  const int64_t channels = shape->heads * shape->head_size;
  Linear linear[3];
  SQUEEZEBERT_TRY(read_linear("query", query, 0, channels, &linear[0]));
  const int64_t in_channels = linear[0].weight.shape.in_channels;
  SQUEEZEBERT_TRY(read_linear("key", key, in_channels, channels, &linear[1]));
  SQUEEZEBERT_TRY(read_linear("value", value, in_channels, channels, &linear[2]));
  const int64_t tokens = shape->query_offsets[shape->sequences];
  const Matrix out = {"output", output, tokens, channels, output_stride};
  SQUEEZEBERT_TRY(check_matrices({{"input", input, tokens, in_channels, input_stride}}, out));
  SQUEEZEBERT_TRY(check_apart(out, "query", *query, linear[0]));
  SQUEEZEBERT_TRY(check_apart(out, "key", *key, linear[1]));
  SQUEEZEBERT_TRY(check_apart(out, "value", *value, linear[2]));
  SQUEEZEBERT_TRY(check_mask(mask, *shape, out));
  const Projections projections{&linear[0], &linear[1], &linear[2]};
  float* const memory = memory_for(context, qkv_attention_floats(context->workers, projections, *shape));
  if (!memory) return SQUEEZEBERT_OUT_OF_MEMORY;
  const Rows x{input, input_stride};
  run_qkv_attention(context->workers, projections, {*shape, mask}, x, x, {output, output_stride}, memory);
  return call.ended();
}

squeezebert_status squeezebert_grouped_ffn(squeezebert_context* context, int64_t tokens, const float* input,
                                           int64_t input_stride, const squeezebert_linear* intermediate,
                                           const squeezebert_linear* output_layer,
                                           const squeezebert_layer_norm* layer_norm, float* output,
                                           int64_t output_stride) {
  const Call call(context);
  SQUEEZEBERT_TRY(call.begun());
  SQUEEZEBERT_TRY(check_tokens(tokens));
  SQUEEZEBERT_TRY(check_layer_norm("layer_norm", layer_norm));
  Linear first;
  Linear second;
  SQUEEZEBERT_TRY(read_linear("intermediate", intermediate, 0, 0, &first));
  const squeezebert_conv_shape& shape = first.weight.shape;
  SQUEEZEBERT_TRY(read_linear("output_layer", output_layer, shape.out_channels, shape.in_channels, &second));
  const Matrix out = {"output", output, tokens, shape.in_channels, output_stride};
  SQUEEZEBERT_TRY(check_matrices({{"input", input, tokens, shape.in_channels, input_stride}}, out));
  SQUEEZEBERT_TRY(check_apart(out, "intermediate", *intermediate, first));
  SQUEEZEBERT_TRY(check_apart(out, "output_layer", *output_layer, second));
  SQUEEZEBERT_TRY(check_apart(out, "layer_norm", *layer_norm, shape.in_channels));
  const Ffn ffn{&first, &second, layer_norm};
  float* const memory = memory_for(context, ffn_floats(context->workers, tokens, ffn));
  if (!memory) return SQUEEZEBERT_OUT_OF_MEMORY;
  run_ffn(context->workers, tokens, ffn, {input, input_stride}, {output, output_stride}, memory);
  return call.ended();
}

squeezebert_status squeezebert_embedding_layer_norm(squeezebert_context* context, int64_t tokens,
                                                    const int64_t* input_ids, const int64_t* token_type_ids,
                                                    const int64_t* position_ids,
                                                    const squeezebert_embeddings* embeddings, float* output,
                                                    int64_t output_stride) {
  const Call call(context);
  SQUEEZEBERT_TRY(call.begun());
  SQUEEZEBERT_TRY(check_tokens(tokens));
  SQUEEZEBERT_TRY(check_struct("embeddings", embeddings, sizeof *embeddings));
  if (!embeddings->word || !embeddings->position || !embeddings->token_type) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "embeddings: expected three tables, got NULL");
  }
  const squeezebert_embeddings& e = *embeddings;
  if (e.channels < 1 || e.vocabulary < 1 || e.positions < 1 || e.token_types < 1) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT,
                "embeddings: expected at least one channel, word, position and token type, got %" PRId64 ", %" PRId64
                ", %" PRId64 " and %" PRId64,
                e.channels, e.vocabulary, e.positions, e.token_types);
  }
  const Matrix out = {"output", output, tokens, e.channels, output_stride};
  SQUEEZEBERT_TRY(check_matrices({{"word", e.word, e.vocabulary, e.channels, e.channels},
                                  {"position", e.position, e.positions, e.channels, e.channels},
                                  {"token_type", e.token_type, e.token_types, e.channels, e.channels}},
                                 out));
  SQUEEZEBERT_TRY(check_layer_norm("layer_norm", &e.layer_norm));
  SQUEEZEBERT_TRY(check_ids("input_ids", input_ids, tokens, e.vocabulary));
  SQUEEZEBERT_TRY(check_ids("position_ids", position_ids, tokens, e.positions));
  if (token_type_ids) SQUEEZEBERT_TRY(check_ids("token_type_ids", token_type_ids, tokens, e.token_types));
  const int64_t id_bytes = tokens * static_cast<int64_t>(sizeof(int64_t));
  SQUEEZEBERT_TRY(check_matrices({flat("input_ids", input_ids, id_bytes), flat("position_ids", position_ids, id_bytes),
                                  flat("token_type_ids", token_type_ids, id_bytes)},
                                 out));
  SQUEEZEBERT_TRY(check_apart(out, "layer_norm", e.layer_norm, e.channels));
  run_embedding(context->workers, tokens, input_ids, token_type_ids, position_ids, e, {output, output_stride});
  return call.ended();
}

}  // extern "C"
