// The row kernels as the engine sees them: what an instruction set computes on rows of float32, whatever the format
// that they are multiplied in. Plain structs of arguments and one table of functions per instruction set; no vector
// type appears here, so this header is the same for every translation unit.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace squeezebert {

// See kernels/softmax/kernel.h.
struct SoftmaxArgs {
  int64_t rows = 0;
  int64_t keys = 0;
  float* scores = nullptr;  // [rows, keys], with room for kRowPadding floats behind each row; replaced by exponentials
  ptrdiff_t stride = 0;
  const float* mask = nullptr;   // added to the scores; null: none
  ptrdiff_t mask_stride = 0;     // between rows; 0: the same for all
  float* reciprocals = nullptr;  // [rows], of the sums; 0 where a sum is
};

// The widest vector.
constexpr int kRowPadding = 16;

struct LayerNormArgs {
  int64_t rows = 0;
  int64_t channels = 0;
  const float* x = nullptr;
  ptrdiff_t x_stride = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float epsilon = 0.0f;
  float* y = nullptr;  // may be x
  ptrdiff_t y_stride = 0;
};

struct EmbeddingArgs {
  int64_t rows = 0;
  int64_t channels = 0;
  const int64_t* input_ids = nullptr;
  const int64_t* token_type_ids = nullptr;  // null: all 0
  const int64_t* position_ids = nullptr;
  const float* word = nullptr;
  const float* position = nullptr;
  const float* token_type = nullptr;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float epsilon = 0.0f;
  float* y = nullptr;
  ptrdiff_t y_stride = 0;
};

struct RowKernels {
  const char* name;  // of the instruction set
  void (*layer_norm)(const LayerNormArgs&);
  void (*embedding_layer_norm)(const EmbeddingArgs&);
  void (*softmax)(const SoftmaxArgs&);
};

}  // namespace squeezebert
