#include <algorithm>

#include "engine/steps.h"

namespace squeezebert {

namespace {

// A block's intermediate values take at most twice the L2 per worker; at groups = 1 they would not fit there at
// row_block() rows of 3072 anyway, and wider layers get fewer rows.
int64_t block_most() { return 2 * level2_cache_bytes() / static_cast<int64_t>(sizeof(float)); }

struct FfnPlan {
  bool fused = false;  // a task is a block of rows and a group, both layers
  Split rows{};
  int64_t stride = 0;  // of the intermediate values: of one group if fused, else of all
  Size hidden;         // floats of them; fused: for each worker
  Size left;           // fused: of either layer's left side, for each worker
};

FfnPlan plan_ffn(const Workers& workers, int64_t tokens, const Ffn& ffn) {
  const squeezebert_conv_shape& shape = ffn.intermediate->weight.shape;
  FfnPlan plan;
  int64_t block = 0;  // the most rows of a task
  // With the same number of groups, block g of the first layer feeds block g of the second and no other.
  if (shape.groups == ffn.output->weight.shape.groups) {
    plan.stride = padded_stride(shape.out_channels / shape.groups);
    block = std::clamp<int64_t>(block_most() / plan.stride, 1, row_block());
    const auto split = [&] { return Split{tokens, (tokens + block - 1) / block}; };
    // Blocks of fewer than 32 rows would stream the weights for too little work each.
    while (!enough_tasks(workers, split().parts * shape.groups) && block >= 64) block /= 2;
    plan.rows = split();
    block = std::min(block, tokens);
    plan.fused = workers.count == 1 || plan.rows.parts * shape.groups >= workers.count;
  }
  if (!plan.fused) plan.stride = padded_stride(shape.out_channels);
  plan.hidden = Size(plan.fused ? block : tokens) * plan.stride;
  if (plan.fused) plan.left = std::max(left_floats(*ffn.intermediate, block), left_floats(*ffn.output, block));
  return plan;
}

bool by_row_blocks(const Workers& workers, int64_t tokens) { return enough_tasks(workers, split_rows(tokens).parts); }

Ffn ffn_of(const Layer& layer) { return {&layer.intermediate, &layer.output, &layer.output_norm}; }

Size block_floats(const Workers& workers, int64_t tokens, const Layer& layer) {
  return Size(tokens) * padded_stride(layer.post_attention.weight.shape.out_channels) +
         std::max(conv_floats(workers, tokens, {&layer.post_attention}), ffn_floats(workers, tokens, ffn_of(layer)));
}

void run_block(const Workers& workers, int64_t tokens, const Layer& layer, Rows context, Rows x, MutableRows y,
               float* memory) {
  const int64_t channels = layer.post_attention.weight.shape.out_channels;
  const MutableRows middle{memory, padded_stride(channels)};
  float* const step_memory = memory + tokens * middle.stride;
  const ConvStep post{.layer = &layer.post_attention,
                      .x = context,
                      .y = middle,
                      .residual = x,
                      .next = layer.intermediate.weight.panels};
  run_conv(workers, tokens, {post}, step_memory);
  run_layer_norm(workers, tokens, channels, middle, layer.post_attention_norm);
  run_ffn(workers, tokens, ffn_of(layer), middle, y, step_memory);
}

}  // namespace

Size ffn_floats(const Workers& workers, int64_t tokens, const Ffn& ffn) {
  const FfnPlan plan = plan_ffn(workers, tokens, ffn);
  if (plan.fused) return workers.count * (plan.hidden + plan.left);
  return plan.hidden + conv_floats(workers, tokens, {ffn.intermediate, ffn.output});
}

void run_ffn(const Workers& workers, int64_t tokens, const Ffn& ffn, Rows x, MutableRows y, float* memory) {
  if (tokens == 0) return;
  const FfnPlan plan = plan_ffn(workers, tokens, ffn);
  if (!plan.fused) {
    const MutableRows hidden{memory, plan.stride};
    float* const left = memory + plan.hidden.count();
    const ConvStep first{
        .layer = ffn.intermediate, .x = x, .y = hidden, .gelu = true, .next = ffn.output->weight.panels};
    run_conv(workers, tokens, {first}, left);
    run_conv(workers, tokens, {{.layer = ffn.output, .x = hidden, .y = y, .residual = x}}, left);
  } else {
    const Weight& wide = ffn.intermediate->weight;
    const Weight& narrow = ffn.output->weight;
    const int64_t groups = wide.shape.groups;
    for_each_task(workers, plan.rows.parts * groups, [&](int64_t task, int32_t worker) {
      const int64_t group = task % groups;
      const int64_t row = plan.rows.begin(task / groups);
      const int64_t rows = plan.rows.begin(task / groups + 1) - row;
      float* const mine = memory + worker * (plan.hidden + plan.left).count();
      float* const left = mine + plan.hidden.count();
      const MutableRows hidden{mine, plan.stride, group * wide.group_columns()};
      const ConvStep first{.layer = ffn.intermediate,
                           .x = x.from(row),
                           .y = hidden,
                           .gelu = true,
                           .next = narrow.panel(group * narrow.group_panels())};
      const ConvStep second{.layer = ffn.output,
                            .x = hidden,
                            .y = y.from(row),
                            .residual = x.from(row),
                            .next = wide.panel((group + 1) % groups * wide.group_panels())};
      conv_panels(first, rows, group * wide.group_panels(), (group + 1) * wide.group_panels(), left);
      conv_panels(second, rows, group * narrow.group_panels(), (group + 1) * narrow.group_panels(), left);
    });
  }
  run_layer_norm(workers, tokens, ffn.output->weight.shape.out_channels, y, *ffn.norm);
}

Size after_attention_floats(const Workers& workers, int64_t tokens, const Layer& layer) {
  if (!by_row_blocks(workers, tokens)) return block_floats(workers, tokens, layer);
  return workers.count * block_floats(Workers{}, split_rows(tokens).most(), layer);
}

void run_after_attention(const Workers& workers, int64_t tokens, const Layer& layer, Rows context, Rows x,
                         MutableRows y, float* memory) {
  if (!by_row_blocks(workers, tokens)) return run_block(workers, tokens, layer, context, x, y, memory);
  const Split rows = split_rows(tokens);
  const int64_t floats = block_floats(Workers{}, rows.most(), layer).count();
  for_each_task(workers, rows.parts, [&](int64_t task, int32_t worker) {
    const int64_t row = rows.begin(task);
    run_block(Workers{}, rows.begin(task + 1) - row, layer, context.from(row), x.from(row), y.from(row),
              memory + worker * floats);
  });
}

}  // namespace squeezebert
