// A layer's backward pass, in four regions: what is row by row from the output down to attention's context; attention;
// the projections' share of the input's gradient, row by row again; and the gradients of parameters. What lies below
// the last parameter that is trained is not computed.
#include "engine/training.h"

namespace squeezebert {

namespace {

int64_t ffn_parts(const Layer& transposed) {
  const int64_t groups = transposed.intermediate.weight.shape.groups;
  return groups == transposed.output.weight.shape.groups ? groups : 1;
}

// How far down the pass goes.
struct Reach {
  bool projections = false;     // gradients of query, key and value
  bool context = false;         // of the attention's output
  bool post_attention = false;  // of the first LayerNorm's input
  bool attended = false;        // of its output
  bool hidden = false;          // of the intermediate channels; and those again, for the last weight's
  explicit Reach(const LayerGradients& g) {
    projections = g.input.data || g.query.wanted() || g.key.wanted() || g.value.wanted();
    context = projections;
    post_attention = context || g.post_attention.wanted();
    attended = post_attention || g.post_attention_norm.wanted();
    hidden = attended || g.intermediate.wanted() || g.output.wanted();
  }
};

// Gradients between the regions, a matrix of all tokens each.
struct Between {
  MutableRows output;          // of the last convolution's output
  MutableRows attended;        // of the first LayerNorm's output
  MutableRows post_attention;  // of the first convolution's output
  MutableRows context;
  MutableRows input;         // the residual's share, where the caller does not want it
  MutableRows intermediate;  // before GELU
  AttentionGradients projections;
  // Computed again.
  MutableRows ffn_input;
  MutableRows activated;
};

Size between_floats(const Training& t) {
  return Size(t.tokens()) * (9 * padded_stride(t.channels) + 2 * padded_stride(t.inner));
}

Between between_in(float* memory, const Training& t) {
  const auto matrix = [&](int64_t width) {
    const MutableRows rows{memory, padded_stride(width)};
    memory += t.tokens() * rows.stride;
    return rows;
  };
  Between b;
  b.output = matrix(t.channels);
  b.attended = matrix(t.channels);
  b.post_attention = matrix(t.channels);
  b.context = matrix(t.channels);
  b.input = matrix(t.channels);
  b.projections = {matrix(t.channels), matrix(t.channels), matrix(t.channels)};
  b.ffn_input = matrix(t.channels);
  b.intermediate = matrix(t.inner);
  b.activated = matrix(t.inner);
  return b;
}

Size task_floats(const Workers& workers, const Training& t, const Layer& transposed) {
  const int64_t rows = training_rows(workers, t.tokens()).most();
  Size floats;
  for (const Linear* linear : {&transposed.query, &transposed.key, &transposed.value, &transposed.post_attention,
                               &transposed.intermediate, &transposed.output}) {
    floats = std::max(floats, left_floats(*linear, rows));
  }
  return floats;
}

void layer_norm_backward(const Training& t, int64_t rows, Rows grad_y, Rows normal, const float* scales,
                         const squeezebert_layer_norm& norm, MutableRows grad_x, MutableRows y) {
  row_kernels()->layer_norm_backward({.rows = rows,
                                      .channels = t.channels,
                                      .grad_y = grad_y.data,
                                      .grad_y_stride = grad_y.stride,
                                      .normal = normal.data,
                                      .normal_stride = normal.stride,
                                      .scales = scales,
                                      .weight = norm.weight,
                                      .bias = norm.bias,
                                      .grad_x = grad_x.data,
                                      .grad_x_stride = grad_x.stride,
                                      .y = y.data,
                                      .y_stride = y.stride});
}

// Rows [begin, begin + rows), from the output to the context.
void run_rows(const Training& t, const Reach& reach, const Layer& transposed, const Saved& saved, Rows grad_output,
              const Between& b, MutableRows input, int64_t begin, int64_t rows, float* left) {
  layer_norm_backward(t, rows, grad_output.from(begin), saved.output_normal.from(begin), saved.output_scales + begin,
                      transposed.output_norm, b.attended.from(begin), {});
  run_dropout(t, kOutputSite, begin, begin + rows, b.attended, b.output);
  if (!reach.hidden) return;
  const int64_t parts = ffn_parts(transposed);
  const int64_t wide_panels = transposed.output.weight.all_panels() / parts;
  const int64_t narrow_panels = transposed.intermediate.weight.all_panels() / parts;
  const int64_t width = t.inner / parts;
  for (int64_t part = 0; part < parts; ++part) {
    const MutableRows intermediate = b.intermediate.from(begin), activated = b.activated.from(begin);
    conv_panels({.layer = &transposed.output,
                 .x = b.output.from(begin),
                 .y = intermediate,
                 .next = transposed.intermediate.weight.panel(part * narrow_panels)},
                rows, part * wide_panels, (part + 1) * wide_panels, left);
    row_kernels()->gelu_backward({.rows = rows,
                                  .channels = width,
                                  .x = saved.intermediate.at(begin, part * width),
                                  .x_stride = saved.intermediate.stride,
                                  .y = activated.at(0, part * width),
                                  .y_stride = activated.stride,
                                  .grad = intermediate.at(0, part * width),
                                  .grad_stride = intermediate.stride});
    if (!reach.attended) continue;
    conv_panels({.layer = &transposed.intermediate, .x = intermediate, .y = b.attended.from(begin), .accumulate = true},
                rows, part * narrow_panels, (part + 1) * narrow_panels, left);
  }
  // Even if nothing is wanted below: the input of the second convolution is computed again there.
  layer_norm_backward(t, rows, b.attended.from(begin), saved.post_attention_normal.from(begin),
                      saved.post_attention_scales + begin, transposed.post_attention_norm, input.from(begin),
                      b.ffn_input.from(begin));
  if (!reach.post_attention) return;
  run_dropout(t, kPostAttentionSite, begin, begin + rows, input, b.post_attention);
  if (!reach.context) return;
  conv_panels({.layer = &transposed.post_attention, .x = b.post_attention.from(begin), .y = b.context.from(begin)},
              rows, 0, transposed.post_attention.weight.all_panels(), left);
}

}  // namespace

Size backward_floats(const Workers& workers, const Training& t, const Layer& transposed) {
  return between_floats(t) + std::max({workers.count * task_floats(workers, t, transposed),
                                       attention_backward_floats(workers, t), parameter_gradients_floats(workers)});
}

void run_backward(const Workers& workers, const Training& t, const Layer& transposed, Rows x, const Saved& saved,
                  Rows grad_output, const LayerGradients& to, float* memory) {
  const int64_t tokens = t.tokens();
  const Reach reach(to);
  const Between b = between_in(memory, t);
  const MutableRows input = to.input.data ? to.input : b.input;
  float* const step_memory = memory + between_floats(t).count();
  const int64_t floats = task_floats(workers, t, transposed).count();
  const Split blocks = training_rows(workers, tokens);
  for_each_task(workers, blocks.parts, [&](int64_t task, int32_t worker) {
    const int64_t begin = blocks.begin(task);
    run_rows(t, reach, transposed, saved, grad_output, b, input, begin, blocks.begin(task + 1) - begin,
             step_memory + worker * floats);
  });
  if (reach.projections) run_attention_backward(workers, t, saved, b.context, b.projections, step_memory);
  if (to.input.data) {
    const struct {
      const Linear* layer;
      Rows grad;
    } shares[] = {{&transposed.query, b.projections.query},
                  {&transposed.key, b.projections.key},
                  {&transposed.value, b.projections.value}};
    for_each_task(workers, blocks.parts, [&](int64_t task, int32_t worker) {
      const int64_t begin = blocks.begin(task), rows = blocks.begin(task + 1) - begin;
      for (const auto& [layer, grad] : shares) {
        conv_panels({.layer = layer, .x = grad.from(begin), .y = input.from(begin), .accumulate = true}, rows, 0,
                    layer->weight.all_panels(), step_memory + worker * floats);
      }
    });
  }
  // `transposed` has the shapes the other way round.
  const auto step = [](const LinearGradient& gradient, const Linear& linear, Rows grad_y, Rows from) {
    const squeezebert_conv_shape& shape = linear.weight.shape;
    return GradientStep{gradient, grad_y, from, shape.in_channels, shape.out_channels, shape.groups};
  };
  // The largest tasks first.
  run_parameter_gradients(workers, tokens,
                          {step(to.output, transposed.output, b.output, b.activated),
                           step(to.post_attention, transposed.post_attention, b.post_attention, saved.context),
                           step(to.intermediate, transposed.intermediate, b.intermediate, b.ffn_input),
                           step(to.query, transposed.query, b.projections.query, x),
                           step(to.key, transposed.key, b.projections.key, x),
                           step(to.value, transposed.value, b.projections.value, x),
                           {to.output_norm, grad_output, saved.output_normal, t.channels},
                           {to.post_attention_norm, b.attended, saved.post_attention_normal, t.channels}},
                          step_memory);
}

}  // namespace squeezebert
