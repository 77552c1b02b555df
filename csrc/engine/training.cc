#include "engine/training.h"

#include <cmath>

namespace squeezebert {

namespace {

// The layers that a block of rows runs through group by group, where their groups line up.
int64_t ffn_parts(const Layer& layer) {
  const int64_t groups = layer.intermediate.weight.shape.groups;
  return groups == layer.output.weight.shape.groups ? groups : 1;
}

struct ForwardMemory {
  int64_t rows = 0;
  Size attended;  // after the first LayerNorm
  Size hidden;    // after GELU, of one part
  Size left;
  Size task() const { return attended + hidden + left; }
};

ForwardMemory plan_forward(const Workers& workers, const Training& t, const Layer& layer) {
  ForwardMemory memory;
  memory.rows = training_rows(workers, t.tokens()).most();
  memory.attended = Size(memory.rows) * padded_stride(t.channels);
  memory.hidden = Size(memory.rows) * padded_stride(t.inner / ffn_parts(layer));
  for (const Linear* linear : {&layer.post_attention, &layer.intermediate, &layer.output}) {
    memory.left = std::max(memory.left, left_floats(*linear, memory.rows));
  }
  return memory;
}

// What lies between the matrices' rows, so that what is kept is a function of the arguments throughout.
void clear_padding(const Saved& saved, int64_t tokens, int64_t channels, int64_t inner) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (const MutableRows& rows :
         {saved.query, saved.key, saved.value, saved.context, saved.post_attention_normal, saved.output_normal}) {
      std::fill(rows.at(t, channels), rows.at(t, rows.stride), 0.0f);
    }
    std::fill(saved.intermediate.at(t, inner), saved.intermediate.at(t, saved.intermediate.stride), 0.0f);
  }
  const int64_t scales = whole_lines(tokens).count();
  std::fill(saved.post_attention_scales + tokens, saved.post_attention_scales + scales, 0.0f);
  std::fill(saved.output_scales + tokens, saved.output_scales + scales, 0.0f);
}

}  // namespace

Size saved_floats(int64_t tokens, int64_t channels, int64_t inner) {
  return Size(tokens) * (6 * padded_stride(channels) + padded_stride(inner)) + 2 * whole_lines(tokens);
}

Saved saved_in(float* memory, int64_t tokens, int64_t channels, int64_t inner) {
  Saved saved;
  const auto matrix = [&](int64_t width) {
    const MutableRows rows{memory, padded_stride(width)};
    memory += tokens * rows.stride;
    return rows;
  };
  saved.query = matrix(channels);
  saved.key = matrix(channels);
  saved.value = matrix(channels);
  saved.context = matrix(channels);
  saved.post_attention_normal = matrix(channels);
  saved.output_normal = matrix(channels);
  saved.intermediate = matrix(inner);
  saved.post_attention_scales = memory;
  saved.output_scales = memory + whole_lines(tokens).count();
  return saved;
}

Attention training_attention(const Training& t) {
  const int64_t head_size = t.channels / t.heads;
  Attention attention{{.struct_size = sizeof(squeezebert_attention_shape),
                       .sequences = t.sequences,
                       .query_offsets = t.cu_seqlens,
                       .key_offsets = t.cu_seqlens,
                       .heads = t.heads,
                       .head_size = head_size,
                       .scale = 1.0f / std::sqrt(static_cast<float>(head_size)),
                       .key_format = SQUEEZEBERT_FLOAT32,
                       .value_format = SQUEEZEBERT_FLOAT32},
                      t.mask,
                      t.attention};
  attention.dropout.site = kAttentionSite;
  return attention;
}

Split training_rows(const Workers& workers, int64_t tokens) {
  int64_t block = row_block();
  while (!enough_tasks(workers, (tokens + block - 1) / block) && block >= 32) block /= 2;
  return {tokens, (tokens + block - 1) / block};
}

void run_dropout(const Training& t, uint32_t site, int64_t begin, int64_t end, Rows x, MutableRows y) {
  for_each_sequence(t, t.hidden, site, begin, end, [&](int64_t row, int64_t rows, const Dropout& dropout) {
    row_kernels()->dropout({.rows = rows,
                            .channels = t.channels,
                            .x = x.at(row, 0),
                            .x_stride = x.stride,
                            .dropout = dropout,
                            .y = y.at(row, 0),
                            .y_stride = y.stride});
  });
}

Size training_forward_floats(const Workers& workers, const Training& t, const Layer& layer) {
  const Size projections = conv_floats(workers, t.tokens(), {&layer.query, &layer.key, &layer.value});
  const Size attention = attention_floats(workers, training_attention(t).shape);
  return std::max({projections, attention, workers.count * plan_forward(workers, t, layer).task()});
}

void run_training_forward(const Workers& workers, const Training& t, const Layer& layer, Rows x, MutableRows y,
                          const Saved& saved, float* memory) {
  const int64_t tokens = t.tokens();
  if (tokens == 0) return;
  clear_padding(saved, tokens, t.channels, t.inner);
  run_conv(workers, tokens,
           {{.layer = &layer.query, .x = x, .y = saved.query},
            {.layer = &layer.key, .x = x, .y = saved.key},
            {.layer = &layer.value, .x = x, .y = saved.value}},
           memory);
  run_attention(workers, training_attention(t), saved.query, saved.key, saved.value, saved.context, memory);

  const RowKernels& kernels = *row_kernels();
  const Split blocks = training_rows(workers, tokens);
  const ForwardMemory plan = plan_forward(workers, t, layer);
  const int64_t parts = ffn_parts(layer);
  for_each_task(workers, blocks.parts, [&](int64_t task, int32_t worker) {
    const int64_t begin = blocks.begin(task), rows = blocks.begin(task + 1) - begin;
    float* const mine = memory + worker * plan.task().count();
    const MutableRows attended{mine, padded_stride(t.channels)};
    const MutableRows hidden{mine + plan.attended.count(), padded_stride(t.inner / parts)};
    float* const left = hidden.data + plan.hidden.count();

    // normal = layer_norm(dropout(normal) + residual), without weight and bias; with them in `to`.
    const auto finish = [&](uint32_t site, MutableRows normal, float* scales, Rows residual,
                            const squeezebert_layer_norm& norm, MutableRows to) {
      if (t.hidden.threshold != 0) run_dropout(t, site, begin, begin + rows, normal, normal);
      kernels.add_layer_norm({.rows = rows,
                              .channels = t.channels,
                              .residual = residual.data,
                              .residual_stride = residual.stride,
                              .weight = norm.weight,
                              .bias = norm.bias,
                              .epsilon = norm.epsilon,
                              .x = normal.at(begin, 0),
                              .x_stride = normal.stride,
                              .scales = scales + begin,
                              .y = to.data,
                              .y_stride = to.stride});
    };
    const ConvStep post{.layer = &layer.post_attention,
                        .x = saved.context.from(begin),
                        .y = saved.post_attention_normal.from(begin),
                        .next = layer.intermediate.weight.panels};
    conv_panels(post, rows, 0, layer.post_attention.weight.all_panels(), left);
    finish(kPostAttentionSite, saved.post_attention_normal, saved.post_attention_scales, x.from(begin),
           layer.post_attention_norm, attended);

    const int64_t wide_panels = layer.intermediate.weight.all_panels() / parts;
    const int64_t narrow_panels = layer.output.weight.all_panels() / parts;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t channel = part * (t.inner / parts);
      const MutableRows activated{hidden.data, hidden.stride, channel};
      const MutableRows intermediate = saved.intermediate.from(begin);
      conv_panels({.layer = &layer.intermediate,
                   .x = attended,
                   .y = intermediate,
                   .next = layer.output.weight.panel(part * narrow_panels)},
                  rows, part * wide_panels, (part + 1) * wide_panels, left);
      kernels.gelu({.rows = rows,
                    .channels = t.inner / parts,
                    .x = intermediate.at(0, channel),
                    .x_stride = intermediate.stride,
                    .y = activated.data,
                    .y_stride = activated.stride});
      conv_panels({.layer = &layer.output, .x = activated, .y = saved.output_normal.from(begin)}, rows,
                  part * narrow_panels, (part + 1) * narrow_panels, left);
    }
    finish(kOutputSite, saved.output_normal, saved.output_scales, attended, layer.output_norm, y.from(begin));
  });
}

}  // namespace squeezebert
