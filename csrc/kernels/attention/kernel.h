// attention: softmax(scale * Q K^T + mask) V, for queries of one sequence and one head.
//
// Exact two-pass softmax over a block of query rows whose scores stay in cache: both products are panels of the
// grouped_conv1x1 micro-kernel. The keys are packed as if they were weights [key_rows, head_size], the values as the
// transpose of one. The probabilities are left unnormalized; the second product divides by their sum in its epilogue.
#pragma once

#include <float.h>
#include <math.h>

#include "kernels/grouped_conv1x1/kernel.h"
#include "kernels/layer_norm/kernel.h"
#include "math/exp.h"

namespace squeezebert::SQUEEZEBERT_ISA {

// Two tiles of queries at a time: a key panel (head_size x kColumns elements) is read from L2 once for both, and 28
// rows of 512 scores are 56 KiB of AVX-512's L2.
constexpr int64_t kQueryBlock = 2 * Tile::kRows;

inline int64_t panels_of(int64_t columns) { return (columns + Tile::kColumns - 1) / Tile::kColumns; }

// Room for the padding lanes of the last vector, and an odd number of vectors so that the rows of a block do not all
// fall on the same cache sets.
inline int64_t score_stride(int64_t key_rows) {
  const int64_t vectors = (key_rows + Vec::kLanes - 1) / Vec::kLanes + 1;
  return (vectors | 1) * Vec::kLanes;
}

// Floats that the keys' and values' panels take. Both arguments are below 2^31, so the elements are fewer than 2^63 +
// 2^38: what this and attention_scratch compute fits 64 bits, unsigned.
inline uint64_t packed_floats(int64_t key_rows, int64_t head_size) {
  const auto panel_rows = static_cast<uint64_t>(panels_of(key_rows) * head_size + panels_of(head_size) * key_rows);
  constexpr uint64_t kPerFloat = sizeof(float) / sizeof(Element);
  return (panel_rows * Tile::kColumns + kPerFloat - 1) / kPerFloat;
}

inline uint64_t attention_scratch(int64_t key_rows, int64_t head_size) {
  return packed_floats(key_rows, head_size) + static_cast<uint64_t>(kQueryBlock * score_stride(key_rows)) +
         2 * kQueryBlock;
}

// Turns a row of scaled scores into exp(score - max) and returns 1 / their sum. The lanes past the last key are set to
// -infinity first and so come out as zeros.
inline float softmax_row(float* scores, const float* mask, int64_t keys) {
  constexpr int kLanes = Vec::kLanes;
  store(scores + keys, broadcast(-INFINITY));
  // Not -infinity: a row that is -infinity throughout then has exponentials and a sum of zero, not NaN.
  Vec largest = broadcast(-FLT_MAX);
  for_each_vector(keys, [&](int64_t j, int n) __attribute__((always_inline)) {
    Vec score = load(scores + j);
    if (mask) {
      score = score + load_some(mask + j, n);
      store(scores + j, score);
    }
    largest = SQUEEZEBERT_HOT_LOOP("softmax, maximum")(max(score, largest));
  });
  const Vec limit = broadcast(reduce_max(largest));
  const int64_t padded = (keys + kLanes - 1) / kLanes * kLanes;
  const float sum = sum_over(SQUEEZEBERT_HOT_LOOP("softmax, exp and sum"), padded, [=](int64_t j, int, Vec partial) {
    const Vec power = exp(load(scores + j) - limit);
    store(scores + j, power);
    return partial + power;
  });
  return sum == 0.0f ? 0.0f : 1.0f / sum;
}

inline void attention(const AttentionArgs& a) {
  const int64_t key_panels = panels_of(a.key_rows);
  const int64_t value_panels = panels_of(a.head_size);
  auto* const keys = reinterpret_cast<Element*>(a.scratch);
  Element* const values = keys + key_panels * a.head_size * Tile::kColumns;
  float* const scores = a.scratch + packed_floats(a.key_rows, a.head_size);
  const int64_t stride = score_stride(a.key_rows);
  float* scales = scores + kQueryBlock * stride;
  float* reciprocals = scales + kQueryBlock;

  const auto columns_of = [](int64_t columns, int64_t panel) {
    const int64_t left = columns - panel * Tile::kColumns;
    return static_cast<int>(left < Tile::kColumns ? left : Tile::kColumns);
  };
  for (int64_t p = 0; p < key_panels; ++p) {
    pack_panel(a.key + p * Tile::kColumns * a.key_stride, a.key_stride, 1, a.head_size, columns_of(a.key_rows, p),
               keys + p * a.head_size * Tile::kColumns);
  }
  for (int64_t p = 0; p < value_panels; ++p) {
    pack_panel(a.value + p * Tile::kColumns, 1, a.value_stride, a.key_rows, columns_of(a.head_size, p),
               values + p * a.key_rows * Tile::kColumns);
  }
  for (int64_t i = 0; i < kQueryBlock; ++i) scales[i] = a.scale;

  const int64_t blocks = (a.query_rows + kQueryBlock - 1) / kQueryBlock;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = a.query_rows * b / blocks;
    const int64_t rows = a.query_rows * (b + 1) / blocks - begin;

    PanelArgs product;
    product.rows = rows;
    product.depth = a.head_size;
    product.x = a.query + begin * a.query_stride;
    product.x_stride = a.query_stride;
    product.c_stride = stride;
    product.row_scale = scales;
    for (int64_t p = 0; p < key_panels; ++p) {
      product.panel = keys + p * a.head_size * Tile::kColumns;
      product.next_panel = product.panel;
      product.columns = columns_of(a.key_rows, p);
      product.c = scores + p * Tile::kColumns;
      grouped_conv1x1_panel(product);
    }

    for (int64_t i = 0; i < rows; ++i) {
      const float* mask = a.mask ? a.mask + (begin + i) * a.mask_stride : nullptr;
      reciprocals[i] = softmax_row(scores + i * stride, mask, a.key_rows);
    }

    product.depth = a.key_rows;
    product.x = scores;
    product.x_stride = stride;
    product.c_stride = a.output_stride;
    product.row_scale = reciprocals;
    for (int64_t p = 0; p < value_panels; ++p) {
      product.panel = values + p * a.key_rows * Tile::kColumns;
      product.next_panel = product.panel;
      product.columns = columns_of(a.head_size, p);
      product.c = a.output + begin * a.output_stride + p * Tile::kColumns;
      grouped_conv1x1_panel(product);
    }
  }
}

}  // namespace squeezebert::SQUEEZEBERT_ISA
