#include <algorithm>

#include "engine/steps.h"

namespace squeezebert {

namespace {

// Tasks of one step per worker: the last to finish then keeps the others waiting for at most a fourth of their work.
constexpr int64_t kTasksPerWorker = 4;

}  // namespace

// Group by group: the panels of one group share the rows' left side.
void conv_panels(const ConvStep& step, int64_t rows, int64_t first, int64_t last, float* memory, int64_t tap) {
  const Weight& weight = step.layer->weight;
  const Product& product = *weight.product;
  const int64_t group_panels = weight.group_panels();
  for (int64_t p = first; p < last;) {
    const int64_t group = p / group_panels;
    const int64_t end = std::min(last, (group + 1) * group_panels);
    const int64_t in_group = p % group_panels * product.layout.columns;
    const int64_t column = group * weight.group_columns() + in_group;
    const int64_t columns = std::min((end - p) * product.layout.columns, weight.group_columns() - in_group);
    const LeftRows x = {
        .values = step.x.at(0, group * weight.depth()),
        .stride = step.x.stride,
        .rows = rows,
        .depth = weight.depth(),
    };
    const Left left = prepare_left(product, x, memory, step.left_is_ready);
    product.multiply({
        .rows = rows,
        .depth = weight.depth(),
        .columns = columns,
        .left = left.rows,
        .left_stride = left.stride,
        .panels = weight.panel(p, tap),
        .next = end < last || !step.next ? weight.panel(end, tap) : step.next,
        .c = step.y.at(0, column),
        .c_stride = step.y.stride,
        .accumulate = step.accumulate,
        .bias = step.layer->bias ? step.layer->bias + column : nullptr,
        .residual = step.residual.data ? step.residual.at(0, column) : nullptr,
        .residual_stride = step.residual.stride,
        .gelu = step.gelu,
    });
    p = end;
  }
}

namespace {

// Of one worker.
Size left_floats(int64_t rows, std::initializer_list<const Linear*> layers) {
  Size floats;
  for (const Linear* layer : layers) floats = std::max(floats, squeezebert::left_floats(*layer, rows));
  return floats;
}

}  // namespace

Size conv_floats(const Workers& workers, int64_t tokens, std::initializer_list<const Linear*> layers) {
  return workers.count * left_floats(std::min(tokens, row_block()), layers);
}

void run_conv(const Workers& workers, int64_t tokens, std::initializer_list<ConvStep> steps, float* memory) {
  if (tokens == 0) return;
  const Split rows = split_rows(tokens);
  int64_t panels = 0;
  int64_t floats = 0;  // of one worker's left side
  for (const ConvStep& step : steps) {
    panels += step.layer->weight.all_panels();
    floats = std::max(floats, left_floats(*step.layer, rows.most()).count());
  }
  const int64_t wanted = (kTasksPerWorker * workers.count + rows.parts - 1) / rows.parts;
  const Split chunks{panels, workers.count == 1 ? 1 : std::min(panels, wanted)};
  for_each_task(workers, rows.parts * chunks.parts, [&](int64_t task, int32_t worker) {
    const int64_t block = task / chunks.parts;
    const int64_t row = rows.begin(block);
    int64_t first = chunks.begin(task % chunks.parts);
    int64_t last = chunks.begin(task % chunks.parts + 1);
    for (ConvStep step : steps) {
      const int64_t here = step.layer->weight.all_panels();
      if (first < here && last > 0) {
        step.x = step.x.from(row);
        step.y = step.y.from(row);
        if (step.residual.data) step.residual = step.residual.from(row);
        conv_panels(step, rows.begin(block + 1) - row, std::max<int64_t>(first, 0), std::min(last, here),
                    memory + worker * floats);
      }
      first -= here;
      last -= here;
    }
  });
}

Size conv1d_floats(const Workers& workers, int64_t sequences, const int32_t* cu_seqlens, const Linear& layer) {
  return workers.count * left_floats(longest(cu_seqlens, sequences), {&layer});
}

void run_conv1d(const Workers& workers, int64_t sequences, const int32_t* cu_seqlens, const Linear& layer, Rows x,
                MutableRows y, float* memory) {
  const Weight& weight = layer.weight;
  const int64_t taps = weight.shape.kernel_size;
  const Split chunks{weight.all_panels(),
                     workers.count == 1 ? 1 : std::min(weight.all_panels(), kTasksPerWorker * workers.count)};
  const int64_t floats = left_floats(longest(cu_seqlens, sequences), {&layer}).count();
  for_each_task(workers, sequences * chunks.parts, [&](int64_t task, int32_t worker) {
    const int64_t begin = cu_seqlens[task / chunks.parts];
    const int64_t length = cu_seqlens[task / chunks.parts + 1] - begin;
    const int64_t first_panel = chunks.begin(task % chunks.parts), last_panel = chunks.begin(task % chunks.parts + 1);
    if (length == 0) return;
    float* const mine = memory + worker * floats;
    // The middle tap reaches every row and starts the sums; the others add to the rows whose neighbour lies inside.
    ConvStep step{.layer = &layer, .x = x.from(begin), .y = y.from(begin)};
    conv_panels(step, length, first_panel, last_panel, mine, taps / 2);
    step.accumulate = true;
    const int64_t reach = std::min(taps / 2, length - 1);
    for (int64_t shift = -reach; shift <= reach; ++shift) {
      if (shift == 0) continue;
      const int64_t first = std::max<int64_t>(0, -shift);
      const int64_t last = std::min(length, length - shift);
      step.x = x.from(begin + first + shift);
      step.y = y.from(begin + first);
      conv_panels(step, last - first, first_panel, last_panel, mine, taps / 2 + shift);
    }
  });
}

void run_layer_norm(const Workers& workers, int64_t tokens, int64_t channels, MutableRows matrix,
                    const squeezebert_layer_norm& norm) {
  const RowKernels& kernels = *row_kernels();
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
  const RowKernels& kernels = *row_kernels();
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
