// Attention's backward pass. A task is one sequence and one head, so that the sums of dK and dV over queries stay in
// it. Scores and probabilities are computed again, block by block of queries, as the forward pass did:
//
//   P = softmax(scale * Q K^T + mask),  dropped = dropout(P),  dV = dropped^T dO
//   dP = dropout(dO V^T),  dS = scale * P * (dP - sum of P * dP),  dQ = dS K,  dK = dS^T Q
#include "engine/training.h"

namespace squeezebert {

namespace {

// Where the parts of a task's memory begin, in floats.
struct Plan {
  int64_t block = 0;         // queries taken at once
  int64_t score_stride = 0;  // between rows of scores, and of their gradient
  int64_t left_stride = 0;   // between rows of either, transposed
  Size by_key;               // keys, or values, as columns
  Size by_channel;           // the channels of keys as columns
  Size queries;              // the channels of a block of queries as columns
  Size scores;
  Size left;
  Size row;
  Size factors;
  Size all() const { return by_key + by_key + by_channel + queries + scores + scores + left + row + row + factors; }
};

// Both matrices of scores within 256 KiB, where that leaves 32 queries; more than 128 gain nothing.
Plan plan_head_backward(int64_t keys, int64_t head_size) {
  constexpr int64_t kFloats = 64 << 10;
  const PanelLayout& layout = product_for(SQUEEZEBERT_FLOAT32)->layout;
  const auto panels = [&](int64_t columns, int64_t depth) {
    return Size(layout.panels(columns)) * (layout.bytes(depth) / static_cast<int64_t>(sizeof(float)));
  };
  Plan plan;
  plan.score_stride = padded_stride(keys + kRowPadding);
  plan.block = std::clamp<int64_t>(kFloats / 2 / plan.score_stride, 32, 128);
  plan.left_stride = padded_stride(plan.block);
  plan.by_key = panels(keys, head_size);
  plan.by_channel = panels(head_size, keys);
  plan.queries = panels(head_size, plan.block);
  plan.scores = Size(plan.block) * plan.score_stride;
  plan.left = Size(keys) * plan.left_stride;
  plan.row = whole_lines(plan.block);
  plan.factors = whole_lines(keys);
  return plan;
}

void run_head_backward(const Training& t, int64_t sequence, int64_t head, const Saved& saved, Rows grad_context,
                       const AttentionGradients& to, float* memory) {
  const Product& product = *product_for(SQUEEZEBERT_FLOAT32);
  const RowKernels& kernels = *row_kernels();
  const Attention attention = training_attention(t);
  const int64_t head_size = t.channels / t.heads, channel = head * head_size;
  const int64_t begin = t.cu_seqlens[sequence], keys = t.cu_seqlens[sequence + 1] - begin;
  const Plan plan = plan_head_backward(keys, head_size);
  float* const keys_by_key = memory;
  float* const values_by_key = keys_by_key + plan.by_key.count();
  float* const keys_by_channel = values_by_key + plan.by_key.count();
  float* const queries = keys_by_channel + plan.by_channel.count();
  float* const scores = queries + plan.queries.count();
  float* const grad = scores + plan.scores.count();
  float* const left = grad + plan.scores.count();
  float* const reciprocals = left + plan.left.count();
  float* const scales = reciprocals + plan.row.count();
  float* const factors = scales + plan.row.count();

  // As columns: the rows of a matrix, or its channels.
  const auto pack_rows = [&](Rows rows, int64_t first, int64_t count, float* panels) {
    product.pack_right({.values = rows.at(first, channel),
                        .column_stride = rows.stride,
                        .k_stride = 1,
                        .depth = head_size,
                        .columns = count},
                       panels);
  };
  const auto pack_channels = [&](Rows rows, int64_t first, int64_t count, float* panels) {
    product.pack_right({.values = rows.at(first, channel),
                        .column_stride = 1,
                        .k_stride = rows.stride,
                        .depth = count,
                        .columns = head_size},
                       panels);
  };
  pack_rows(saved.key, begin, keys, keys_by_key);
  pack_rows(saved.value, begin, keys, values_by_key);
  pack_channels(saved.key, begin, keys, keys_by_channel);
  std::fill_n(scales, plan.block, attention.shape.scale);

  const auto bytes = [](ptrdiff_t stride) { return stride * static_cast<ptrdiff_t>(sizeof(float)); };
  for (int64_t query = 0; query < keys; query += plan.block) {
    const int64_t rows = std::min(plan.block, keys - query);
    // scores = scale * Q K^T, grad = dO V^T
    const auto by_key = [&](Rows x, const float* panels, float* c, const float* row_scale) {
      product.multiply({.rows = rows,
                        .depth = head_size,
                        .columns = keys,
                        .left = x.at(begin + query, channel),
                        .left_stride = bytes(x.stride),
                        .panels = panels,
                        .next = panels,
                        .c = c,
                        .c_stride = plan.score_stride,
                        .row_scale = row_scale});
    };
    by_key(saved.query, keys_by_key, scores, scales);
    const squeezebert_mask* const mask = t.mask;
    kernels.softmax({.rows = rows,
                     .keys = keys,
                     .scores = scores,
                     .stride = plan.score_stride,
                     .mask = mask ? mask->data + sequence * mask->sequence_stride + head * mask->head_stride +
                                        query * mask->query_stride
                                  : nullptr,
                     .mask_stride = mask ? mask->query_stride : 0,
                     .reciprocals = reciprocals});
    by_key(grad_context, values_by_key, grad, nullptr);
    Dropout dropout = attention.dropout;
    dropout.site += static_cast<uint32_t>(head);
    dropout.sequence = sequence;
    dropout.first_row = query;
    kernels.softmax_backward({.rows = rows,
                              .keys = keys,
                              .scores = scores,
                              .grad = grad,
                              .stride = plan.score_stride,
                              .reciprocals = reciprocals,
                              .scale = attention.shape.scale,
                              .dropout = dropout,
                              .factors = factors});
    product.multiply({.rows = rows,
                      .depth = keys,
                      .columns = head_size,
                      .left = grad,
                      .left_stride = bytes(plan.score_stride),
                      .panels = keys_by_channel,
                      .next = keys_by_channel,
                      .c = to.query.at(begin + query, channel),
                      .c_stride = to.query.stride});
    // c += weights^T x
    const auto add_over_queries = [&](const float* weights, Rows x, MutableRows c) {
      kernels.transpose({.rows = rows,
                         .columns = keys,
                         .x = weights,
                         .x_stride = plan.score_stride,
                         .y = left,
                         .y_stride = plan.left_stride});
      pack_channels(x, begin + query, rows, queries);
      product.multiply({.rows = keys,
                        .depth = rows,
                        .columns = head_size,
                        .left = left,
                        .left_stride = bytes(plan.left_stride),
                        .panels = queries,
                        .next = queries,
                        .c = c.at(begin, channel),
                        .c_stride = c.stride,
                        .accumulate = query > 0});
    };
    add_over_queries(scores, grad_context, to.value);
    add_over_queries(grad, saved.query, to.key);
  }
}

}  // namespace

Size attention_backward_floats(const Workers& workers, const Training& t) {
  return workers.count * plan_head_backward(longest(t.cu_seqlens, t.sequences), t.channels / t.heads).all();
}

void run_attention_backward(const Workers& workers, const Training& t, const Saved& saved, Rows grad_context,
                            const AttentionGradients& gradients, float* memory) {
  const int64_t floats = plan_head_backward(longest(t.cu_seqlens, t.sequences), t.channels / t.heads).all().count();
  for_each_task(workers, t.sequences * t.heads, [&](int64_t task, int32_t worker) {
    const int64_t sequence = task / t.heads;
    if (t.cu_seqlens[sequence] == t.cu_seqlens[sequence + 1]) return;
    run_head_backward(t, sequence, task % t.heads, saved, grad_context, gradients, memory + worker * floats);
  });
}

}  // namespace squeezebert
