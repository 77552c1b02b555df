#include <algorithm>

#include "engine/steps.h"

namespace squeezebert {

namespace {

// A block's intermediate values take at most 2 MiB per worker; at groups = 1 they would not fit L2 at kRowBlock rows of
// 3072 anyway, and wider layers get fewer rows.
constexpr int64_t kBlockFloats = 512 * 1024;

struct FfnPlan {
  bool fused = false;  // a task is a block of rows and a group, both layers
  Split rows{};
  int64_t stride = 0;  // of the intermediate values: of one group if fused, else of all
  Size floats;         // fused: for each worker
};

FfnPlan plan_ffn(const Workers& workers, int64_t tokens, const Ffn& ffn) {
  const squeezebert_conv_shape& shape = ffn.intermediate->weight.shape;
  FfnPlan plan;
  // With the same number of groups, block g of the first layer feeds block g of the second and no other.
  if (shape.groups == ffn.output->weight.shape.groups) {
    plan.stride = padded_stride(shape.out_channels / shape.groups);
    int64_t block = std::clamp<int64_t>(kBlockFloats / plan.stride, 1, kRowBlock);
    const auto split = [&] { return Split{tokens, (tokens + block - 1) / block}; };
    // Blocks of fewer than 32 rows would stream the weights for too little work each.
    while (!enough_tasks(workers, split().parts * shape.groups) && block >= 64) block /= 2;
    plan.rows = split();
    plan.fused = workers.count == 1 || plan.rows.parts * shape.groups >= workers.count;
  }
  if (!plan.fused) plan.stride = padded_stride(shape.out_channels);
  plan.floats = Size(plan.fused ? plan.rows.most() : tokens) * plan.stride;
  return plan;
}

bool by_row_blocks(const Workers& workers, int64_t tokens) { return enough_tasks(workers, split_rows(tokens).parts); }

Ffn ffn_of(const Layer& layer) { return {&layer.intermediate, &layer.output, &layer.output_norm}; }

Size block_floats(const Workers& workers, int64_t tokens, const Layer& layer) {
  return Size(tokens) * padded_stride(layer.post_attention.weight.shape.out_channels) +
         ffn_floats(workers, tokens, ffn_of(layer));
}

void run_block(const Workers& workers, int64_t tokens, const Layer& layer, Rows context, Rows x, MutableRows y,
               float* memory) {
  const int64_t channels = layer.post_attention.weight.shape.out_channels;
  const MutableRows middle{memory, padded_stride(channels)};
  const ConvStep post{&layer.post_attention, context, middle, x, false, false, layer.intermediate.weight.panels};
  run_conv(workers, tokens, &post, 1);
  run_layer_norm(workers, tokens, channels, middle, layer.post_attention_norm);
  run_ffn(workers, tokens, ffn_of(layer), middle, y, memory + tokens * middle.stride);
}

}  // namespace

Size ffn_floats(const Workers& workers, int64_t tokens, const Ffn& ffn) {
  const FfnPlan plan = plan_ffn(workers, tokens, ffn);
  return plan.fused ? plan.floats * workers.count : plan.floats;
}

void run_ffn(const Workers& workers, int64_t tokens, const Ffn& ffn, Rows x, MutableRows y, float* memory) {
  if (tokens == 0) return;
  const FfnPlan plan = plan_ffn(workers, tokens, ffn);
  if (!plan.fused) {
    const MutableRows hidden{memory, plan.stride};
    const ConvStep first{ffn.intermediate, x, hidden, {}, true, false, ffn.output->weight.panels};
    const ConvStep second{ffn.output, hidden, y, x, false, false, nullptr};
    run_conv(workers, tokens, &first, 1);
    run_conv(workers, tokens, &second, 1);
  } else {
    const Weight& wide = ffn.intermediate->weight;
    const Weight& narrow = ffn.output->weight;
    const int64_t groups = wide.shape.groups;
    for_each_task(workers, plan.rows.parts * groups, [&](int64_t task, int32_t worker) {
      const int64_t group = task % groups;
      const int64_t row = plan.rows.begin(task / groups);
      const int64_t rows = plan.rows.begin(task / groups + 1) - row;
      const MutableRows hidden{memory + worker * plan.floats.count(), plan.stride, group * wide.group_columns()};
      const ConvStep first{
          ffn.intermediate, x.from(row), hidden, {}, true, false, narrow.panel(group * narrow.group_panels())};
      const ConvStep second{ffn.output,
                            hidden,
                            y.from(row),
                            x.from(row),
                            false,
                            false,
                            wide.panel((group + 1) % groups * wide.group_panels())};
      conv_panels(first, rows, group * wide.group_panels(), (group + 1) * wide.group_panels());
      conv_panels(second, rows, group * narrow.group_panels(), (group + 1) * narrow.group_panels());
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
