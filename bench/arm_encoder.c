/* The work that `make arm-count` counts: SqueezeBERT's encoder through the C API, 1 x 128 tokens, one thread, in the
 * format that the first argument names, or float32; one layer and then twelve, each marked as bench/arm_count.c asks,
 * after a warm-up. Says where the library was loaded, so that bench/arm_count.py can tell which of its functions
 * a counted address lies in. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "squeezebert.h"

enum { kTokens = 128, kHidden = 768, kWide = 3072, kLayers = 12 };

static void check(squeezebert_status status) {
  if (status == SQUEEZEBERT_OK) return;
  fprintf(stderr, "%s\n", squeezebert_last_error());
  exit(1);
}

static squeezebert_format format = SQUEEZEBERT_FLOAT32;

static float* numbers(int64_t count, float scale) {
  static uint32_t seed = 1;
  float* x = malloc(count * sizeof(float));
  for (int64_t i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = ((float)(seed >> 8) / (1 << 23) - 1.0f) * scale;
  }
  return x;
}

static squeezebert_linear linear(int64_t out, int64_t in, int64_t groups) {
  const squeezebert_conv_shape shape = {out, in, groups, 1};
  size_t bytes = 0;
  check(squeezebert_packed_size(&shape, format, &bytes));
  void* packed = aligned_alloc(64, (bytes + 63) / 64 * 64);
  float* weight = numbers(out * in / groups, 0.04f);
  check(squeezebert_pack(&shape, format, weight, packed, bytes));
  free(weight);
  return (squeezebert_linear){packed, bytes, numbers(out, 0.1f)};
}

static squeezebert_layer_norm norm(void) {
  return (squeezebert_layer_norm){numbers(kHidden, 1.0f), numbers(kHidden, 0.1f), 1e-12f};
}

int main(int argc, char** argv) {
  while (argc > 1 && strcmp(argv[1], squeezebert_format_name(format)) != 0) {
    format = (squeezebert_format)(format + 1);
    if (squeezebert_format_name(format)) continue;
    fprintf(stderr, "format: expected one of this library's, got %s\n", argv[1]);
    return 1;
  }
  squeezebert_layer layers[kLayers];
  for (int i = 0; i < kLayers; ++i) {
    layers[i] = (squeezebert_layer){sizeof(squeezebert_layer),
                                    linear(kHidden, kHidden, 4),
                                    linear(kHidden, kHidden, 4),
                                    linear(kHidden, kHidden, 4),
                                    linear(kHidden, kHidden, 1),
                                    norm(),
                                    linear(kWide, kHidden, 4),
                                    linear(kHidden, kWide, 4),
                                    norm(),
                                    format,
                                    format};
  }
  const int32_t offsets[2] = {0, kTokens};
  const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), 1, offsets, 12, 0};
  squeezebert_context* context = NULL;
  check(squeezebert_context_create(NULL, NULL, 1, &context));
  float* x = numbers(kTokens * kHidden, 1.0f);
  float* y = numbers(kTokens * kHidden, 1.0f);
  check(squeezebert_encoder(context, &shape, layers, 1, x, kHidden, NULL, y, kHidden));  // warm-up
  Dl_info library;
  if (!dladdr((const void*)squeezebert_encoder, &library)) return 1;
  fprintf(stderr, "library %p\n", library.dli_fbase);
  const int counts[] = {1, kLayers};
  for (int i = 0; i < 2; ++i) {
    fprintf(stderr, "region %d\n", counts[i]);
    getpriority(PRIO_PROCESS, 1397440817);
    check(squeezebert_encoder(context, &shape, layers, counts[i], x, kHidden, NULL, y, kHidden));
    getpriority(PRIO_PROCESS, 1397440818);
  }
  return 0;
}
