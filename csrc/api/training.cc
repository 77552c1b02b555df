// The C API: training of a layer.
#include "engine/training.h"

#include <cinttypes>
#include <cmath>

#include "api/call.h"
#include "api/check.h"

using namespace squeezebert;

namespace {

squeezebert_status read_dropout(const char* name, float probability, uint64_t seed, Dropout* dropout) {
  if (!(probability >= 0.0f && probability < 1.0f)) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected a probability, 0 to below 1, got %g", name,
                static_cast<double>(probability));
  }
  dropout->seed = seed;
  dropout->threshold = static_cast<uint32_t>(static_cast<double>(probability) * 0x1p32);
  if (dropout->threshold != 0) dropout->scale = 1.0f / (1.0f - probability);
  return SQUEEZEBERT_OK;
}

// A layer, or one whose weights are transposed; in float32.
squeezebert_status read_layer(const squeezebert_layer* from, bool transposed, Layer* to, Training* training) {
  SQUEEZEBERT_TRY(check_struct("layer", from, sizeof *from));
  Linear first;
  SQUEEZEBERT_TRY(read_linear("query", &from->query, 0, 0, &first));
  const int64_t channels = first.weight.shape.in_channels;
  const squeezebert_linear& widening = transposed ? from->output : from->intermediate;
  SQUEEZEBERT_TRY(read_linear(transposed ? "output" : "intermediate", &widening, channels, 0, &first));
  const int64_t inner = first.weight.shape.out_channels;
  const struct {
    const char* name;
    const squeezebert_linear* from;
    Linear* to;
    int64_t in, out;
  } linears[] = {{"query", &from->query, &to->query, channels, channels},
                 {"key", &from->key, &to->key, channels, channels},
                 {"value", &from->value, &to->value, channels, channels},
                 {"post_attention", &from->post_attention, &to->post_attention, channels, channels},
                 {"intermediate", &from->intermediate, &to->intermediate, transposed ? inner : channels,
                  transposed ? channels : inner},
                 {"output", &from->output, &to->output, transposed ? channels : inner, transposed ? inner : channels}};
  for (const auto& linear : linears) {
    SQUEEZEBERT_TRY(read_linear(linear.name, linear.from, linear.in, linear.out, linear.to));
    const squeezebert_format format = linear.to->weight.product->format;
    if (format != SQUEEZEBERT_FLOAT32) {
      return fail(SQUEEZEBERT_BAD_PACK, "%s: expected a weight packed as float32, which is trained in, got %s",
                  linear.name, format_name(format));
    }
  }
  SQUEEZEBERT_TRY(check_layer_norm("post_attention_layer_norm", &from->post_attention_layer_norm));
  SQUEEZEBERT_TRY(check_layer_norm("output_layer_norm", &from->output_layer_norm));
  to->post_attention_norm = from->post_attention_layer_norm;
  to->output_norm = from->output_layer_norm;
  training->channels = channels;
  training->inner = inner;
  return SQUEEZEBERT_OK;
}

// What both passes check alike: all but their own matrices.
squeezebert_status read_training(const squeezebert_training* given, const squeezebert_layer* layer, bool transposed,
                                 const squeezebert_mask* mask, const Matrix& output, const float* saved, size_t floats,
                                 Layer* to, Training* training) {
  SQUEEZEBERT_TRY(check_struct("training", given, sizeof *given));
  SQUEEZEBERT_TRY(check_offsets("cu_seqlens", given->sequences, given->cu_seqlens));
  SQUEEZEBERT_TRY(read_dropout("hidden_dropout", given->hidden_dropout, given->seed, &training->hidden));
  SQUEEZEBERT_TRY(read_dropout("attention_dropout", given->attention_dropout, given->seed, &training->attention));
  SQUEEZEBERT_TRY(read_layer(layer, transposed, to, training));
  if (given->heads < 1 || training->channels % given->heads != 0) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "heads: expected a divisor of %" PRId64 " channels, got %" PRId64,
                training->channels, given->heads);
  }
  training->sequences = given->sequences;
  training->cu_seqlens = given->cu_seqlens;
  training->heads = given->heads;
  training->mask = mask;
  SQUEEZEBERT_TRY(check_mask(mask, training_attention(*training).shape, output));
  size_t expected = 0;
  SQUEEZEBERT_TRY(
      squeezebert_training_saved_floats(training->tokens(), training->channels, training->inner, &expected));
  if (floats < expected || (expected > 0 && !saved)) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "saved: expected %zu floats, got %zu", expected, saved ? floats : 0);
  }
  return check_alignment("saved", saved, alignof(float));
}

LinearGradient read(const squeezebert_gradient& gradient) { return {gradient.weight, gradient.bias}; }

}  // namespace

extern "C" {

squeezebert_status squeezebert_training_saved_floats(int64_t tokens, int64_t channels, int64_t intermediate_channels,
                                                     size_t* floats) {
  if (!floats) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "floats: expected where to put their number, got NULL");
  SQUEEZEBERT_TRY(check_tokens(tokens));
  for (const int64_t count : {channels, intermediate_channels}) {
    if (count >= 1 && count <= INT32_MAX) continue;
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "channels: expected 1 to 2^31 - 1, got %" PRId64, count);
  }
  const Size size = saved_floats(tokens, channels, intermediate_channels);
  if ((size * sizeof(float)).too_large()) {
    return fail(SQUEEZEBERT_OUT_OF_MEMORY, "tokens: expected what fits into memory, got %" PRId64, tokens);
  }
  *floats = static_cast<size_t>(size.count());
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_encoder_layer_training(squeezebert_context* context,
                                                      const squeezebert_training* training,
                                                      const squeezebert_layer* layer, const float* input,
                                                      int64_t input_stride, const squeezebert_mask* mask, float* output,
                                                      int64_t output_stride, float* saved, size_t saved_floats) {
  const Call call(context);
  SQUEEZEBERT_TRY(call.begun());
  Layer decoded;
  Training t;
  SQUEEZEBERT_TRY(
      read_training(training, layer, false, mask, {"output", nullptr, 0, 0, 0}, saved, saved_floats, &decoded, &t));
  const int64_t tokens = t.tokens();
  const Matrix out = {"output", output, tokens, t.channels, output_stride};
  SQUEEZEBERT_TRY(check_matrices(
      {{"input", input, tokens, t.channels, input_stride},
       {"saved", saved, saved_floats > 0, static_cast<int64_t>(saved_floats), static_cast<int64_t>(saved_floats)}},
      out));
  SQUEEZEBERT_TRY(check_mask(mask, training_attention(t).shape, out));
  auto* const memory = static_cast<float*>(
      context->working.reserve(training_forward_floats(context->workers, t, decoded) * sizeof(float)));
  if (!memory) return SQUEEZEBERT_OUT_OF_MEMORY;
  run_training_forward(context->workers, t, decoded, {input, input_stride}, {output, output_stride},
                       saved_in(saved, tokens, t.channels, t.inner), memory);
  return call.ended();
}

squeezebert_status squeezebert_encoder_layer_backward(
    squeezebert_context* context, const squeezebert_training* training, const squeezebert_layer* transposed,
    const float* input, int64_t input_stride, const squeezebert_mask* mask, const float* saved, size_t saved_floats,
    const float* grad_output, int64_t grad_output_stride, const squeezebert_layer_gradients* gradients) {
  const Call call(context);
  SQUEEZEBERT_TRY(call.begun());
  Layer layer;
  Training t;
  SQUEEZEBERT_TRY(read_training(training, transposed, true, mask, {"gradients", nullptr, 0, 0, 0}, saved, saved_floats,
                                &layer, &t));
  SQUEEZEBERT_TRY(check_struct("gradients", gradients, sizeof *gradients));
  const int64_t tokens = t.tokens();
  const LayerGradients to{.input = {gradients->input, t.channels},
                          .query = read(gradients->query),
                          .key = read(gradients->key),
                          .value = read(gradients->value),
                          .post_attention = read(gradients->post_attention),
                          .post_attention_norm = read(gradients->post_attention_layer_norm),
                          .intermediate = read(gradients->intermediate),
                          .output = read(gradients->output),
                          .output_norm = read(gradients->output_layer_norm)};
  SQUEEZEBERT_TRY(
      check_matrices({{"input", input, tokens, t.channels, input_stride},
                      {"grad_output", grad_output, tokens, t.channels, grad_output_stride}},
                     {"gradients.input", to.input.data, to.input.data ? tokens : 0, t.channels, t.channels}));
  auto* const memory =
      static_cast<float*>(context->working.reserve(backward_floats(context->workers, t, layer) * sizeof(float)));
  if (!memory) return SQUEEZEBERT_OUT_OF_MEMORY;
  run_backward(context->workers, t, layer, {input, input_stride},
               saved_in(const_cast<float*>(saved), tokens, t.channels, t.inner), {grad_output, grad_output_stride}, to,
               memory);
  return call.ended();
}

}  // extern "C"
