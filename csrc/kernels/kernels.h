// The kernels as the engine sees them: plain structs of arguments and one table of function pointers per ISA. No vector
// type appears here, so this header is the same for every translation unit. Activations are float32 whatever the
// weights are.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace squeezebert {

// One panel of a matrix product: c[rows x columns] = x[rows x depth] * panel[depth x columns], and what follows it
// while the tile is still in registers or in L1. See kernels/grouped_conv1x1/kernel.h.
struct PanelArgs {
  int64_t rows = 0;
  int64_t depth = 0;
  int columns = 0;  // at most Kernels::panel_columns
  const float* x = nullptr;
  ptrdiff_t x_stride = 0;
  const void* panel = nullptr;       // depth rows of panel_columns weights
  const void* next_panel = nullptr;  // fetched meanwhile, as many bytes as panel has; any address will do
  float* c = nullptr;
  ptrdiff_t c_stride = 0;
  const float* bias = nullptr;      // [columns]; null: zeros
  const float* residual = nullptr;  // added to the result; null: none
  ptrdiff_t residual_stride = 0;
  const float* row_scale = nullptr;  // [rows], multiplies the result; null: none
  bool accumulate = false;           // start from c, not from the bias
  bool gelu = false;
};

// Queries of one sequence and head against all its keys. See kernels/attention/kernel.h.
struct AttentionArgs {
  int64_t query_rows = 0;
  int64_t key_rows = 0;
  int64_t head_size = 0;
  const float* query = nullptr;
  ptrdiff_t query_stride = 0;
  const float* key = nullptr;
  ptrdiff_t key_stride = 0;
  const float* value = nullptr;
  ptrdiff_t value_stride = 0;
  const float* mask = nullptr;  // null: none
  ptrdiff_t mask_stride = 0;    // between queries; 0: the same for all
  float scale = 1.0f;
  float* output = nullptr;
  ptrdiff_t output_stride = 0;
  float* scratch = nullptr;  // attention_scratch(key_rows, head_size) floats
};

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

struct Kernels {
  const char* name;   // at most 8 characters: packed weights hold it
  int panel_columns;  // NR of the register tile
  int weight_bytes;   // of an element of a panel: 4 (float32) or 2 (float16)

  // Packs columns [0, columns) of a weight whose rows are output channels (weight[column * stride + k * step]) into a
  // panel of depth x panel_columns, zeros past `columns`.
  void (*pack_panel)(const float* weight, ptrdiff_t stride, ptrdiff_t step, int64_t depth, int columns, void* panel);
  void (*grouped_conv1x1_panel)(const PanelArgs&);
  uint64_t (*attention_scratch)(int64_t key_rows, int64_t head_size);  // floats; both below 2^31
  void (*attention)(const AttentionArgs&);
  void (*layer_norm)(const LayerNormArgs&);
  void (*embedding_layer_norm)(const EmbeddingArgs&);
  // Runs `rounds` rounds of independent FMAs and returns the floating-point operations done.
  double (*peak)(int64_t rounds);
};

}  // namespace squeezebert
