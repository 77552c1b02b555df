// A product as the engine sees it: rows of float32 times a packed right side, in one number format on one instruction
// set. Plain structs of arguments and one table of functions per product; no vector type appears here, so this header
// is the same for every translation unit.
//
// The right side is packed into panels: so many columns (output channels of one group, or keys, or a head's channels)
// side by side, k after k, as the inner loop reads them. The left side is rows of float32, multiplied where they lie,
// or, for a format that wants them otherwise (rounded, interleaved, quantized), prepared once by pack_left for all
// panels.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "squeezebert.h"

namespace squeezebert {

// How a panel lies in memory: k in groups of k_group (a column's values of one group are neighbours, and depth is
// padded with zeros to whole groups), then `tail_bytes` of what a format keeps beside the values (a scale for each
// column). Panels are whole cache lines.
struct PanelLayout {
  int32_t columns = 0;  // NR of the register tile
  int32_t k_group = 1;
  int32_t element_bytes = 0;
  int32_t tail_bytes = 0;

  int64_t padded_depth(int64_t depth) const { return (depth + k_group - 1) / k_group * k_group; }
  int64_t tail_at(int64_t depth) const { return padded_depth(depth) * columns * element_bytes; }
  int64_t bytes(int64_t depth) const { return (tail_at(depth) + tail_bytes + 63) / 64 * 64; }
  int64_t panels(int64_t all_columns) const { return (all_columns + columns - 1) / columns; }
};

// `columns` columns of `depth` values: value k of column j is values[j * column_stride + k * k_stride].
template <class Value>
struct Columns {
  Value* values = nullptr;
  ptrdiff_t column_stride = 0;
  ptrdiff_t k_stride = 0;
  int64_t depth = 0;
  int64_t columns = 0;
};

// Whole numbers and what each column of them is multiplied by.
template <class Value, class Scale>
struct Quantized {
  Columns<Value> columns;
  Scale* scales = nullptr;
  ptrdiff_t scale_stride = 0;
};

// A format of whole numbers (products/quantized.h): packing in two steps.
struct QuantizedRight {
  void (*quantize)(const Columns<const float>&, const Quantized<int8_t, float>&);
  void (*pack)(const Quantized<const int8_t, const float>&, void* panels);
  void (*unpack)(const void* panels, const Quantized<int8_t, float>&);
  // A scale for each k rather than for each column, which the left side is to be multiplied by (LeftRows::k_scales);
  // column_stride is 1. Attention's values: a key of which nothing is wanted then shows in no other's scale.
  void (*pack_by_k)(const Columns<const float>&, float* k_scales, void* panels);
};

// `rows` rows of `depth` values, consecutive.
struct LeftRows {
  const float* values = nullptr;
  ptrdiff_t stride = 0;
  int64_t rows = 0;
  int64_t depth = 0;
  bool non_negative = false;        // none is below 0 (the exponentials of a softmax)
  const float* k_scales = nullptr;  // [depth], multiply every row first; null: not. Quantized formats only
};

// c[rows x columns] = finish(start + left * right).
struct ProductArgs {
  int64_t rows = 0;
  int64_t depth = 0;
  int64_t columns = 0;
  const void* left = nullptr;    // rows of float32, or what pack_left made of them
  ptrdiff_t left_stride = 0;     // bytes from row to row
  const void* panels = nullptr;  // of all columns, one behind the other
  const void* next = nullptr;    // fetched meanwhile: the right side that is wanted after this one; any address will do
  float* c = nullptr;
  ptrdiff_t c_stride = 0;
  // Start: what c holds, else the bias, else zero.
  bool accumulate = false;
  const float* bias = nullptr;  // [columns]
  // Finish, in this order; null: not.
  const float* row_scale = nullptr;  // [rows], multiplies
  const float* residual = nullptr;   // [rows, columns], added
  ptrdiff_t residual_stride = 0;
  bool gelu = false;
};

struct Product {
  const char* name;  // its row's in isa/list.inc; packed weights hold it
  squeezebert_format format;
  int32_t rows;  // MR of the register tile
  PanelLayout layout;

  void (*pack_right)(const Columns<const float>&, void* panels);
  // The columns' values, as the format holds them.
  void (*unpack_right)(const void* panels, const Columns<float>&);
  const QuantizedRight* quantized;  // null: the format has none
  // Bytes of a prepared row; null: rows are multiplied where they lie.
  int64_t (*left_stride)(int64_t depth);
  void (*pack_left)(const LeftRows&, void* left);
  void (*multiply)(const ProductArgs&);
  // Runs `rounds` rounds of independent multiply-adds and returns the operations done, 2 each.
  double (*peak)(int64_t rounds);
};

}  // namespace squeezebert
