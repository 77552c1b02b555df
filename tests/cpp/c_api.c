/* The C API from a C program, as another runtime would embed it: it packs weights, brings its own parallel_for, runs
 * single operators and an encoder layer, and makes mistakes. Also the shortest example of how to use the library. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "squeezebert.h"

enum { TOKENS = 21, CHANNELS = 24, WIDE = 48, HEADS = 4, GROUPS = 4, STRIDE = CHANNELS + 3 };

#define OK(call) CHECK((call) == SQUEEZEBERT_OK)

static const int32_t kSequences[] = {0, 9, 9, TOKENS}; /* the second is empty */

/* Numbers in [-1, 1) that are the same everywhere. */
static void fill(float* values, int64_t count, uint32_t seed) {
  for (int64_t i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
  }
}

typedef struct Layer {
  squeezebert_conv_shape shape;
  float* weight;
  float bias[WIDE];
  squeezebert_linear linear;
} Layer;

static void make_layer(Layer* layer, int64_t out, int64_t in, int64_t groups, uint32_t seed) {
  const int64_t count = out * (in / groups);
  size_t bytes = 0;
  layer->shape = (squeezebert_conv_shape){out, in, groups, 1};
  layer->weight = malloc((size_t)count * sizeof(float));
  fill(layer->weight, count, seed);
  fill(layer->bias, out, seed + 1);
  OK(squeezebert_packed_size(&layer->shape, SQUEEZEBERT_FLOAT32, &bytes));
  CHECK(bytes >= (size_t)count * sizeof(float));
  void* packed = NULL;
  CHECK(posix_memalign(&packed, 64, bytes) == 0);
  OK(squeezebert_pack(&layer->shape, SQUEEZEBERT_FLOAT32, layer->weight, packed, bytes));
  layer->linear = (squeezebert_linear){packed, bytes, layer->bias};
}

static void free_layer(Layer* layer) {
  free(layer->weight);
  free((void*)layer->linear.packed);
}

/* A host's parallel_for: here one worker after the other, the last first, since any order must do. */
static void backwards(void* host, int32_t workers, void (*body)(void* argument, int32_t worker), void* argument) {
  ++*(int*)host;
  for (int32_t worker = workers - 1; worker >= 0; --worker) body(argument, worker);
}

static void test_version(void) {
  char numbers[40];
  snprintf(numbers, sizeof numbers, "%d.%d.%d", SQUEEZEBERT_VERSION_MAJOR, SQUEEZEBERT_VERSION_MINOR,
           SQUEEZEBERT_VERSION_PATCH);
  CHECK(strcmp(numbers, SQUEEZEBERT_VERSION) == 0);
  CHECK(strcmp(squeezebert_version(), SQUEEZEBERT_VERSION) == 0);
}

static void test_isas(void) {
  const char* best = squeezebert_isa_name(0);
  const char* active = NULL;
  double gflops = 0.0;
  CHECK(best != NULL && squeezebert_isa_name(100) == NULL && squeezebert_isa_name(-1) == NULL);
  OK(squeezebert_active_isa(&active));
  CHECK(squeezebert_force_isa("none such") == SQUEEZEBERT_UNSUPPORTED_ISA);
  CHECK(strstr(squeezebert_last_error(), "none such") != NULL && strstr(squeezebert_last_error(), "scalar") != NULL);
  for (int i = 0; squeezebert_isa_name(i) != NULL; ++i) {
    OK(squeezebert_force_isa(squeezebert_isa_name(i)));
    OK(squeezebert_active_isa(&active));
    CHECK(strcmp(active, squeezebert_isa_name(i)) == 0);
  }
  OK(squeezebert_force_isa(NULL));
  OK(squeezebert_measure_peak(SQUEEZEBERT_FLOAT32, 0.001, &gflops));
  CHECK(gflops > 0.0);
}

static void test_conv1x1(squeezebert_context* context) {
  static float input[TOKENS * STRIDE], output[TOKENS * WIDE];
  Layer layer;
  squeezebert_conv_shape shape;
  make_layer(&layer, WIDE, CHANNELS, GROUPS, 1);
  fill(input, TOKENS * STRIDE, 2);
  OK(squeezebert_packed_shape(layer.linear.packed, layer.linear.packed_bytes, &shape, NULL));
  CHECK(shape.out_channels == WIDE && shape.in_channels == CHANNELS && shape.groups == GROUPS &&
        shape.kernel_size == 1);
  OK(squeezebert_grouped_conv1x1(context, TOKENS, input, STRIDE, &layer.linear, output, WIDE));
  for (int t = 0; t < TOKENS; ++t) {
    for (int o = 0; o < WIDE; ++o) {
      const int depth = CHANNELS / GROUPS, group = o / (WIDE / GROUPS);
      double sum = layer.bias[o];
      for (int i = 0; i < depth; ++i)
        sum += (double)layer.weight[o * depth + i] * input[t * STRIDE + group * depth + i];
      CHECK_NEAR(output[t * WIDE + o], sum, 4e-6); /* 7 terms of at most 1: 7 * 7 roundings of 2^-24, and 1 more */
    }
  }
  OK(squeezebert_grouped_conv1x1(context, 0, NULL, STRIDE, &layer.linear, NULL, WIDE));
  free_layer(&layer);
}

static void test_encoder(void) {
  static float input[TOKENS * CHANNELS], pooled[TOKENS * CHANNELS], hosted[TOKENS * CHANNELS], steps[TOKENS * CHANNELS];
  static float context_rows[TOKENS * CHANNELS], ones[CHANNELS], zeros[CHANNELS], first[2 * CHANNELS];
  static const int32_t two_sequences[] = {0, 9, TOKENS};
  const squeezebert_layer_norm norm = {ones, zeros, 1e-12f};
  const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), 3, kSequences, HEADS, 0};
  const squeezebert_encoder_shape first_shape = {sizeof(squeezebert_encoder_shape), 2, two_sequences, HEADS, 1};
  const squeezebert_attention_shape attention = {sizeof(squeezebert_attention_shape),
                                                 3,
                                                 kSequences,
                                                 kSequences,
                                                 HEADS,
                                                 CHANNELS / HEADS,
                                                 0.40824829f,
                                                 SQUEEZEBERT_FLOAT32,
                                                 SQUEEZEBERT_FLOAT32};
  squeezebert_context* pool = NULL;
  squeezebert_context* host = NULL;
  int regions = 0;
  Layer query, key, value, post_attention, intermediate, last;
  make_layer(&query, CHANNELS, CHANNELS, GROUPS, 10);
  make_layer(&key, CHANNELS, CHANNELS, GROUPS, 20);
  make_layer(&value, CHANNELS, CHANNELS, GROUPS, 30);
  make_layer(&post_attention, CHANNELS, CHANNELS, 1, 40);
  make_layer(&intermediate, WIDE, CHANNELS, GROUPS, 50);
  make_layer(&last, CHANNELS, WIDE, GROUPS, 60);
  const squeezebert_layer layer = {
      sizeof(squeezebert_layer), query.linear, key.linear, value.linear,        post_attention.linear, norm,
      intermediate.linear,       last.linear,  norm,       SQUEEZEBERT_FLOAT32, SQUEEZEBERT_FLOAT32};
  for (int i = 0; i < CHANNELS; ++i) ones[i] = 1.0f;
  fill(input, TOKENS * CHANNELS, 3);

  OK(squeezebert_context_create(NULL, NULL, 2, &pool));
  OK(squeezebert_context_create(backwards, &regions, 3, &host));
  CHECK(squeezebert_context_workers(pool) == 2 && squeezebert_context_workers(host) == 3);
  OK(squeezebert_encoder(pool, &shape, &layer, 1, input, CHANNELS, NULL, pooled, CHANNELS));
  OK(squeezebert_encoder(host, &shape, &layer, 1, input, CHANNELS, NULL, hosted, CHANNELS));
  CHECK(regions > 0);
  CHECK(memcmp(pooled, hosted, sizeof pooled) == 0);

  /* The same from single operators. LayerNorm leaves values of order 1. */
  OK(squeezebert_grouped_qkv_attention(pool, &attention, input, CHANNELS, &query.linear, &key.linear, &value.linear,
                                       NULL, context_rows, CHANNELS));
  OK(squeezebert_grouped_conv1x1_add_layer_norm(pool, TOKENS, context_rows, CHANNELS, &post_attention.linear, input,
                                                CHANNELS, &norm, steps, CHANNELS));
  memcpy(context_rows, steps, sizeof steps);
  OK(squeezebert_grouped_ffn(pool, TOKENS, context_rows, CHANNELS, &intermediate.linear, &last.linear, &norm, steps,
                             CHANNELS));
  for (int i = 0; i < TOKENS * CHANNELS; ++i) CHECK_NEAR(pooled[i], steps[i], 1e-5);

  OK(squeezebert_encoder(pool, &first_shape, &layer, 1, input, CHANNELS, NULL, first, CHANNELS));
  CHECK(memcmp(first, pooled, sizeof(float) * CHANNELS) == 0);
  CHECK(memcmp(first + CHANNELS, pooled + 9 * CHANNELS, sizeof(float) * CHANNELS) == 0);

  OK(squeezebert_encoder(pool, &shape, &layer, 1, input, CHANNELS, NULL, input, CHANNELS)); /* in place */
  CHECK(memcmp(input, pooled, sizeof input) == 0);

  CHECK(squeezebert_context_memory(pool) > 0);
  squeezebert_context_release_memory(pool);
  CHECK(squeezebert_context_memory(pool) == 0);
  OK(squeezebert_context_set_workers(pool, 1));
  OK(squeezebert_encoder(pool, &shape, &layer, 1, steps, CHANNELS, NULL, hosted, CHANNELS));
  squeezebert_context_destroy(pool);
  squeezebert_context_destroy(host);
  squeezebert_context_destroy(NULL);
  free_layer(&query);
  free_layer(&key);
  free_layer(&value);
  free_layer(&post_attention);
  free_layer(&intermediate);
  free_layer(&last);
}

/* The call must fail with the status, and say so in words that contain `text`. */
static void check_refused(squeezebert_status got, squeezebert_status expected, const char* text, int line) {
  if (got == expected && strstr(squeezebert_last_error(), text) != NULL) return;
  fprintf(stderr, "c_api.c:%d: status %d, expected %d; \"%s\" should name %s\n", line, got, expected,
          squeezebert_last_error(), text);
  ++check_failures;
}
#define REFUSED(call, status, text) check_refused(call, status, text, __LINE__)

static void test_mistakes(squeezebert_context* context) {
  static float input[TOKENS * CHANNELS], output[TOKENS * CHANNELS];
  static const int32_t falling[] = {0, 9, 5, TOKENS};
  const squeezebert_conv_shape uneven = {CHANNELS, CHANNELS, 5, 1}, even_kernel = {CHANNELS, CHANNELS, 1, 2};
  squeezebert_context* none = NULL;
  size_t bytes = 0;
  Layer layer;
  make_layer(&layer, CHANNELS, CHANNELS, GROUPS, 1);
  squeezebert_linear garbage = {input, sizeof input, NULL}, truncated = layer.linear;
  truncated.packed_bytes -= 1;

  REFUSED(squeezebert_context_create(NULL, NULL, 0, &none), SQUEEZEBERT_INVALID_ARGUMENT, "workers");
  REFUSED(squeezebert_packed_size(&uneven, SQUEEZEBERT_FLOAT32, &bytes), SQUEEZEBERT_INVALID_ARGUMENT, "groups");
  REFUSED(squeezebert_packed_size(&even_kernel, SQUEEZEBERT_FLOAT32, &bytes), SQUEEZEBERT_INVALID_ARGUMENT,
          "kernel_size");
  REFUSED(squeezebert_pack(&layer.shape, SQUEEZEBERT_FLOAT32, layer.weight, output, 8), SQUEEZEBERT_INVALID_ARGUMENT,
          "packed: expected room for");
  REFUSED(squeezebert_grouped_conv1x1(context, TOKENS, input, CHANNELS, &garbage, output, CHANNELS),
          SQUEEZEBERT_BAD_PACK, "");
  REFUSED(squeezebert_grouped_conv1x1(context, TOKENS, input, CHANNELS, &truncated, output, CHANNELS),
          SQUEEZEBERT_BAD_PACK, "");
  REFUSED(squeezebert_grouped_conv1x1(context, -1, input, CHANNELS, &layer.linear, output, CHANNELS),
          SQUEEZEBERT_INVALID_ARGUMENT, "tokens");
  REFUSED(squeezebert_grouped_conv1x1(context, TOKENS, NULL, CHANNELS, &layer.linear, output, CHANNELS),
          SQUEEZEBERT_INVALID_ARGUMENT, "input");
  REFUSED(squeezebert_grouped_conv1x1(context, TOKENS, input, CHANNELS - 1, &layer.linear, output, CHANNELS),
          SQUEEZEBERT_INVALID_ARGUMENT, "stride of at least");
  REFUSED(squeezebert_grouped_conv1d(context, 3, falling, input, CHANNELS, &layer.linear, output, CHANNELS),
          SQUEEZEBERT_INVALID_ARGUMENT, "cu_seqlens");
  free_layer(&layer);
}

int main(void) {
  squeezebert_context* context = NULL;
  test_version();
  test_isas();
  OK(squeezebert_context_create(NULL, NULL, 1, &context));
  test_conv1x1(context);
  test_encoder();
  test_mistakes(context);
  squeezebert_context_destroy(context);
  return check_result();
}
