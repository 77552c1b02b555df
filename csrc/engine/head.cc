// Exact two-pass softmax over a block of query rows whose scores stay in cache. The keys are packed as if they were a
// weight [key_rows, head_size], the values as the transpose of one. The probabilities are left unnormalized; the second
// product divides by their sum in its finish.
//
// Quantized values have a scale for each key, which multiplies the exponentials before those are quantized. So a key
// that a mask hides has no part in a result, whatever it holds. It is also the more accurate way: on MiniLM's weights
// and texts of 10 to 512 tokens attention then errs by 1.2 % (root mean square, of float64's), with a scale for each
// channel by 2.5 %, since the keys that nearly every query attends to have small values. Dividing by the sum of the
// quantized exponentials rather than by that of the exact ones was worse (2.2 % for 1.0 % with exact scores).
#include "engine/head.h"

#include "engine/steps.h"

namespace squeezebert {

namespace {

// Where the parts of a head's memory begin, in floats.
struct HeadPlan {
  int64_t block = 0;         // queries taken at once
  int64_t score_stride = 0;  // between rows of scores
  Size keys;
  Size values;
  Size scores;
  Size left;      // of either product
  Size k_scales;  // of the values, where their format is quantized
  Size row;       // of the scales, and of the reciprocals
  Size all() const { return keys + values + scores + left + k_scales + row + row; }
};

HeadPlan plan_head(const HeadKernels& kernels, int64_t key_rows, int64_t head_size) {
  HeadPlan plan;
  // Two tiles of queries at a time: a panel of keys (64 x 32 floats are 8 KiB) is read from L2 once for both, and 28
  // rows of 512 scores are 56 KiB there.
  plan.block = 2 * kernels.scores->rows;
  plan.score_stride = padded_stride(key_rows + kRowPadding);
  const auto panels = [](const Product& product, int64_t columns, int64_t depth) {
    return Size(product.layout.panels(columns)) * (product.layout.bytes(depth) / static_cast<int64_t>(sizeof(float)));
  };
  plan.keys = panels(*kernels.scores, key_rows, head_size);
  plan.values = panels(*kernels.values, head_size, key_rows);
  plan.scores = Size(plan.block) * plan.score_stride;
  plan.left = whole_lines(std::max(left_floats(*kernels.scores, plan.block, head_size),
                                   left_floats(*kernels.values, plan.block, key_rows)));
  if (kernels.values->quantized) plan.k_scales = whole_lines(key_rows);
  plan.row = whole_lines(plan.block);
  return plan;
}

}  // namespace

Size head_floats(const HeadKernels& kernels, int64_t key_rows, int64_t head_size) {
  return plan_head(kernels, key_rows, head_size).all();
}

void run_head(const HeadKernels& kernels, const HeadArgs& a, float* memory) {
  const HeadPlan plan = plan_head(kernels, a.key_rows, a.head_size);
  float* const keys = memory;
  float* const values = keys + plan.keys.count();
  float* const scores = values + plan.values.count();
  float* const left_memory = scores + plan.scores.count();
  float* const k_scales = left_memory + plan.left.count();
  float* const scales = k_scales + plan.k_scales.count();
  float* const reciprocals = scales + plan.row.count();

  kernels.scores->pack_right(
      {.values = a.key, .column_stride = a.key_stride, .k_stride = 1, .depth = a.head_size, .columns = a.key_rows},
      keys);
  const Columns<const float> by_key = {
      .values = a.value, .column_stride = 1, .k_stride = a.value_stride, .depth = a.key_rows, .columns = a.head_size};
  const QuantizedRight* const quantized = kernels.values->quantized;
  if (quantized) {
    quantized->pack_by_k(by_key, k_scales, values);
  } else {
    kernels.values->pack_right(by_key, values);
  }
  std::fill_n(scales, plan.block, a.scale);

  const Split blocks{a.query_rows, (a.query_rows + plan.block - 1) / plan.block};
  for (int64_t b = 0; b < blocks.parts; ++b) {
    const int64_t begin = blocks.begin(b);
    const int64_t rows = blocks.begin(b + 1) - begin;
    const LeftRows queries = {
        .values = a.query + begin * a.query_stride, .stride = a.query_stride, .rows = rows, .depth = a.head_size};
    const Left query = prepare_left(*kernels.scores, queries, left_memory);
    kernels.scores->multiply({
        .rows = rows,
        .depth = a.head_size,
        .columns = a.key_rows,
        .left = query.rows,
        .left_stride = query.stride,
        .panels = keys,
        .next = keys,
        .c = scores,
        .c_stride = plan.score_stride,
        .row_scale = scales,
    });
    kernels.rows->softmax({
        .rows = rows,
        .keys = a.key_rows,
        .scores = scores,
        .stride = plan.score_stride,
        .mask = a.mask ? a.mask + begin * a.mask_stride : nullptr,
        .mask_stride = a.mask_stride,
        .reciprocals = reciprocals,
    });
    if (a.dropout.threshold != 0) {
      Dropout dropout = a.dropout;
      dropout.first_row += begin;
      kernels.rows->dropout({.rows = rows,
                             .channels = a.key_rows,
                             .x = scores,
                             .x_stride = plan.score_stride,
                             .dropout = dropout,
                             .y = scores,
                             .y_stride = plan.score_stride});
    }
    const LeftRows powers = {.values = scores,
                             .stride = plan.score_stride,
                             .rows = rows,
                             .depth = a.key_rows,
                             .non_negative = true,
                             .k_scales = quantized ? k_scales : nullptr};
    const Left probabilities = prepare_left(*kernels.values, powers, left_memory);
    kernels.values->multiply({
        .rows = rows,
        .depth = a.key_rows,
        .columns = a.head_size,
        .left = probabilities.rows,
        .left_stride = probabilities.stride,
        .panels = values,
        .next = values,
        .c = a.output + begin * a.output_stride,
        .c_stride = a.output_stride,
        .row_scale = reciprocals,
    });
  }
}

}  // namespace squeezebert
