// Gradients of weights, biases and LayerNorms: sums over all tokens. A task has some rows of one weight's gradient, in
// one group, or some columns of a bias's; its sums run over the tokens in order, block by block, so how the work is
// split does not show in a bit.
#include "engine/training.h"

namespace squeezebert {

namespace {

// Tokens of one block. A task transposes its rows of grad_y for a block (192 KiB at 192 rows, in L2) and packs the
// columns of x panel by panel (16 KiB on AVX2, in L1).
constexpr int64_t kBlock = 256;
constexpr int64_t kMostRows = 192;
constexpr int64_t kSumColumns = 256;

struct Plan {
  Size left;
  Size panel;
  Size task() const { return left + panel; }
};

Plan plan_gradients() {
  const PanelLayout& layout = product_for(SQUEEZEBERT_FLOAT32)->layout;
  return {Size(kMostRows) * padded_stride(kBlock),
          whole_lines(layout.bytes(kBlock) / static_cast<int64_t>(sizeof(float)))};
}

// A step's tasks: those of its weight first, then those of its sums.
struct StepTasks {
  Split rows{};  // of a group's
  Split sums{};
  int64_t groups = 0;
  int64_t count() const { return groups * rows.parts + sums.parts; }
};

StepTasks tasks_of(const GradientStep& step, int64_t most_rows) {
  StepTasks tasks;
  if (step.in_channels > 0 && step.to.weight) {
    tasks.groups = step.groups;
    const int64_t rows = step.out_channels / step.groups;
    tasks.rows = {rows, (rows + most_rows - 1) / most_rows};
  }
  if (step.to.bias || (step.in_channels == 0 && step.to.weight)) {
    tasks.sums = {step.out_channels, (step.out_channels + kSumColumns - 1) / kSumColumns};
  }
  return tasks;
}

void weight_gradient(const GradientStep& step, int64_t tokens, int64_t group, int64_t first, int64_t rows,
                     float* memory) {
  const Product& product = *product_for(SQUEEZEBERT_FLOAT32);
  const int64_t depth = step.in_channels / step.groups;
  const int64_t channel = group * (step.out_channels / step.groups) + first;
  const int64_t left_stride = padded_stride(kBlock);
  float* const panel = memory + plan_gradients().left.count();
  if (tokens == 0) std::fill_n(step.to.weight + channel * depth, rows * depth, 0.0f);
  for (int64_t token = 0; token < tokens; token += kBlock) {
    const int64_t here = std::min(kBlock, tokens - token);
    row_kernels()->transpose({.rows = here,
                              .columns = rows,
                              .x = step.grad_y.at(token, channel),
                              .x_stride = step.grad_y.stride,
                              .y = memory,
                              .y_stride = left_stride});
    for (int64_t column = 0; column < depth; column += product.layout.columns) {
      const int64_t columns = std::min<int64_t>(product.layout.columns, depth - column);
      product.pack_right({.values = step.x.at(token, group * depth + column),
                          .column_stride = 1,
                          .k_stride = step.x.stride,
                          .depth = here,
                          .columns = columns},
                         panel);
      product.multiply({.rows = rows,
                        .depth = here,
                        .columns = columns,
                        .left = memory,
                        .left_stride = left_stride * static_cast<ptrdiff_t>(sizeof(float)),
                        .panels = panel,
                        .next = panel,
                        .c = step.to.weight + channel * depth + column,
                        .c_stride = depth,
                        .accumulate = token > 0});
    }
  }
}

void sum_columns(const GradientStep& step, int64_t tokens, int64_t first, int64_t columns) {
  ColumnSumsArgs args{
      .rows = tokens, .channels = columns, .x = step.grad_y.at(0, first), .x_stride = step.grad_y.stride};
  if (step.to.bias) {
    args.sums = step.to.bias + first;
    row_kernels()->column_sums(args);
  }
  if (step.in_channels == 0 && step.to.weight) {
    args.y = step.x.at(0, first);
    args.y_stride = step.x.stride;
    args.sums = step.to.weight + first;
    row_kernels()->column_sums(args);
  }
}

}  // namespace

Size parameter_gradients_floats(const Workers& workers) { return workers.count * plan_gradients().task(); }

void run_parameter_gradients(const Workers& workers, int64_t tokens, std::initializer_list<GradientStep> steps,
                             float* memory) {
  const auto count = [&](int64_t most_rows) {
    int64_t tasks = 0;
    for (const GradientStep& step : steps) tasks += tasks_of(step, most_rows).count();
    return tasks;
  };
  int64_t most_rows = kMostRows;
  while (workers.count > 1 && count(most_rows) < 8 * workers.count && most_rows > 24) most_rows /= 2;
  const int64_t floats = plan_gradients().task().count();
  for_each_task(workers, count(most_rows), [&](int64_t task, int32_t worker) {
    for (const GradientStep& step : steps) {
      const StepTasks tasks = tasks_of(step, most_rows);
      const int64_t products = tasks.groups * tasks.rows.parts;
      if (task < products) {
        const int64_t part = task % tasks.rows.parts;
        return weight_gradient(step, tokens, task / tasks.rows.parts, tasks.rows.begin(part),
                               tasks.rows.begin(part + 1) - tasks.rows.begin(part), memory + worker * floats);
      }
      if (task < tasks.count()) {
        const int64_t part = task - products;
        return sum_columns(step, tokens, tasks.sums.begin(part), tasks.sums.begin(part + 1) - tasks.sums.begin(part));
      }
      task -= tasks.count();
    }
  });
}

}  // namespace squeezebert
