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

// ---- training
// --------------------------------------------------------------------------------------------------------

// Which values are dropped: those whose random number is below the threshold. The others are multiplied by `scale`. The
// number of value c of row r is a function of the four integers, r and c: see kernels/dropout/kernel.h.
struct Dropout {
  uint64_t seed = 0;
  uint32_t site = 0;  // which of the layer's dropouts, and head
  int64_t sequence = 0;
  int64_t first_row = 0;  // of the sequence's: that of the first row given
  uint32_t threshold = 0;
  float scale = 1.0f;
};

// y = dropout(x).
struct DropoutArgs {
  int64_t rows = 0;
  int64_t channels = 0;
  const float* x = nullptr;
  ptrdiff_t x_stride = 0;
  Dropout dropout;
  float* y = nullptr;  // may be x
  ptrdiff_t y_stride = 0;
};

// See kernels/layer_norm/training.h.
struct AddLayerNormArgs {
  int64_t rows = 0;
  int64_t channels = 0;
  const float* residual = nullptr;
  ptrdiff_t residual_stride = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float epsilon = 0.0f;
  float* x = nullptr;  // replaced by the normalized rows
  ptrdiff_t x_stride = 0;
  float* scales = nullptr;  // [rows], 1 / sqrt(variance + epsilon)
  float* y = nullptr;
  ptrdiff_t y_stride = 0;
};
struct LayerNormBackwardArgs {
  int64_t rows = 0;
  int64_t channels = 0;
  const float* grad_y = nullptr;
  ptrdiff_t grad_y_stride = 0;
  const float* normal = nullptr;  // what add_layer_norm left in x, and its scales
  ptrdiff_t normal_stride = 0;
  const float* scales = nullptr;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float* grad_x = nullptr;  // may be grad_y
  ptrdiff_t grad_x_stride = 0;
  float* y = nullptr;  // the rows that add_layer_norm gave, again; null: not wanted
  ptrdiff_t y_stride = 0;
};

// y = gelu(x); backward: and grad, that of y, becomes that of x. x and y may not be the same there.
struct GeluArgs {
  int64_t rows = 0;
  int64_t channels = 0;
  const float* x = nullptr;
  ptrdiff_t x_stride = 0;
  float* y = nullptr;
  ptrdiff_t y_stride = 0;
  float* grad = nullptr;
  ptrdiff_t grad_stride = 0;
};

// See kernels/softmax/backward.h.
struct SoftmaxBackwardArgs {
  int64_t rows = 0;
  int64_t keys = 0;
  float* scores = nullptr;  // the exponentials that softmax left; replaced by probabilities, some dropped
  float* grad = nullptr;    // of those; replaced by the gradient of the products of queries and keys
  ptrdiff_t stride = 0;     // of both
  const float* reciprocals = nullptr;
  float scale = 1.0f;  // of those products
  Dropout dropout;
  float* factors = nullptr;  // [keys], room for one row's
};

// sums[c] = sum over the rows, in order, of x[r][c], or of x[r][c] * y[r][c].
struct ColumnSumsArgs {
  int64_t rows = 0;
  int64_t channels = 0;
  const float* x = nullptr;
  ptrdiff_t x_stride = 0;
  const float* y = nullptr;  // null: none
  ptrdiff_t y_stride = 0;
  float* sums = nullptr;
};

// y[c][r] = x[r][c].
struct TransposeArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  const float* x = nullptr;
  ptrdiff_t x_stride = 0;
  float* y = nullptr;
  ptrdiff_t y_stride = 0;
};

struct RowKernels {
  const char* name;  // of the instruction set
  void (*layer_norm)(const LayerNormArgs&);
  void (*embedding_layer_norm)(const EmbeddingArgs&);
  void (*softmax)(const SoftmaxArgs&);
  void (*dropout)(const DropoutArgs&);
  void (*add_layer_norm)(const AddLayerNormArgs&);
  void (*layer_norm_backward)(const LayerNormBackwardArgs&);
  void (*gelu)(const GeluArgs&);
  void (*gelu_backward)(const GeluArgs&);
  void (*softmax_backward)(const SoftmaxBackwardArgs&);
  void (*column_sums)(const ColumnSumsArgs&);
  void (*transpose)(const TransposeArgs&);
};

}  // namespace squeezebert
