#include <algorithm>

#include "engine/steps.h"

namespace squeezebert {

namespace {

// Tasks of one step per worker: the last to finish then keeps the others waiting for at most a fourth of their work.
constexpr int64_t kTasksPerWorker = 4;

}  // namespace

// Panel by panel: a panel stays in cache while the rows stream past it.
void conv_panels(const ConvStep& step, int64_t rows, int64_t first, int64_t last, int64_t tap) {
  const Weight& weight = step.layer->weight;
  const int64_t group_panels = weight.group_panels();
  PanelArgs args;
  args.rows = rows;
  args.depth = weight.depth();
  args.x_stride = step.x.stride;
  args.c_stride = step.y.stride;
  args.residual_stride = step.residual.stride;
  args.gelu = step.gelu;
  args.accumulate = step.accumulate;
  for (int64_t p = first; p < last; ++p) {
    const int64_t group = p / group_panels;
    const int64_t in_group = p % group_panels * weight.kernels->panel_columns;
    const int64_t column = group * weight.group_columns() + in_group;
    args.columns =
        static_cast<int>(std::min<int64_t>(weight.kernels->panel_columns, weight.group_columns() - in_group));
    args.x = step.x.at(0, group * weight.depth());
    args.panel = weight.panel(p, tap);
    args.next_panel = p + 1 < last || !step.next ? weight.panel(p + 1, tap) : step.next;
    args.c = step.y.at(0, column);
    args.bias = step.layer->bias ? step.layer->bias + column : nullptr;
    args.residual = step.residual.data ? step.residual.at(0, column) : nullptr;
    weight.kernels->grouped_conv1x1_panel(args);
  }
}

void run_conv(const Workers& workers, int64_t tokens, const ConvStep* steps, int count) {
  if (tokens == 0) return;
  int64_t panels = 0;
  for (int s = 0; s < count; ++s) panels += steps[s].layer->weight.all_panels();
  const Split rows = split_rows(tokens);
  const int64_t wanted = (kTasksPerWorker * workers.count + rows.parts - 1) / rows.parts;
  const Split chunks{panels, workers.count == 1 ? 1 : std::min(panels, wanted)};
  for_each_task(workers, rows.parts * chunks.parts, [&](int64_t task, int32_t) {
    const int64_t block = task / chunks.parts;
    const int64_t row = rows.begin(block);
    int64_t first = chunks.begin(task % chunks.parts);
    int64_t last = chunks.begin(task % chunks.parts + 1);
    for (int s = 0; s < count; ++s) {
      const int64_t here = steps[s].layer->weight.all_panels();
      if (first < here && last > 0) {
        ConvStep step = steps[s];
        step.x = step.x.from(row);
        step.y = step.y.from(row);
        if (step.residual.data) step.residual = step.residual.from(row);
        conv_panels(step, rows.begin(block + 1) - row, std::max<int64_t>(first, 0), std::min(last, here));
      }
      first -= here;
      last -= here;
    }
  });
}

void run_conv1d(const Workers& workers, int64_t sequences, const int32_t* cu_seqlens, const Linear& layer, Rows x,
                MutableRows y) {
  const Weight& weight = layer.weight;
  const int64_t taps = weight.shape.kernel_size;
  const int64_t panels = weight.all_panels();
  for_each_task(workers, sequences * panels, [&](int64_t task, int32_t) {
    const int64_t begin = cu_seqlens[task / panels];
    const int64_t length = cu_seqlens[task / panels + 1] - begin;
    const int64_t panel = task % panels;
    if (length == 0) return;
    // The middle tap reaches every row and starts the sums; the others add to the rows whose neighbour lies inside.
    ConvStep step{&layer, x.from(begin), y.from(begin), {}, false, false, nullptr};
    conv_panels(step, length, panel, panel + 1, taps / 2);
    step.accumulate = true;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t shift = tap - taps / 2;
      const int64_t first = std::max<int64_t>(0, -shift);
      const int64_t last = std::min(length, length - shift);
      if (shift == 0 || first >= last) continue;
      step.x = x.from(begin + first + shift);
      step.y = y.from(begin + first);
      conv_panels(step, last - first, panel, panel + 1, tap);
    }
  });
}

void run_layer_norm(const Workers& workers, int64_t tokens, int64_t channels, MutableRows matrix,
                    const squeezebert_layer_norm& norm) {
  const Kernels& kernels = *active_kernels();
  const Split rows{tokens, std::min<int64_t>(tokens, workers.count)};
  for_each_task(workers, rows.parts, [&](int64_t task, int32_t) {
    LayerNormArgs args;
    args.rows = rows.begin(task + 1) - rows.begin(task);
    args.channels = channels;
    args.y = matrix.at(rows.begin(task), 0);
    args.y_stride = matrix.stride;
    args.x = args.y;
    args.x_stride = args.y_stride;
    args.weight = norm.weight;
    args.bias = norm.bias;
    args.epsilon = norm.epsilon;
    kernels.layer_norm(args);
  });
}

void run_embedding(const Workers& workers, int64_t tokens, const int64_t* input_ids, const int64_t* token_type_ids,
                   const int64_t* position_ids, const squeezebert_embeddings& embeddings, MutableRows y) {
  const Kernels& kernels = *active_kernels();
  const Split rows{tokens, std::min<int64_t>(tokens, workers.count)};
  for_each_task(workers, rows.parts, [&](int64_t task, int32_t) {
    const int64_t row = rows.begin(task);
    EmbeddingArgs args;
    args.rows = rows.begin(task + 1) - row;
    args.channels = embeddings.channels;
    args.input_ids = input_ids + row;
    args.token_type_ids = token_type_ids ? token_type_ids + row : nullptr;
    args.position_ids = position_ids + row;
    args.word = embeddings.word;
    args.position = embeddings.position;
    args.token_type = embeddings.token_type;
    args.weight = embeddings.layer_norm.weight;
    args.bias = embeddings.layer_norm.bias;
    args.epsilon = embeddings.layer_norm.epsilon;
    args.y = y.at(row, 0);
    args.y_stride = y.stride;
    kernels.embedding_layer_norm(args);
  });
}

}  // namespace squeezebert
