#include "engine/layers.h"

#include <algorithm>

namespace squeezebert {

namespace {

// Rows that one task takes at once: 128 rows of 768 floats are 384 KiB, which stays in a 1 MiB L2 beside the panel (96 KiB)
// that the rows stream past; and a panel fetched from L3 or memory is used 128 times.
constexpr int64_t kRowBlock = 128;

// A task should be some tens of microseconds of work, and there should be enough tasks for workers to finish together.
constexpr int64_t kTasksPerWorker = 4;

// A fused FFN block's intermediate values stay in L2 up to this size (2 MiB of L2 and L3 at worst, for groups = 1).
constexpr int64_t kFusedFloats = 512 * 1024;

struct Split {
  int64_t total;
  int64_t parts;
  int64_t begin(int64_t part) const { return total * part / parts; }
};

Split split_rows(int64_t rows, int64_t most) { return {rows, (rows + most - 1) / most}; }

// Panels [first, last) of the layer for `rows` rows. Panel-major: a panel stays in cache while the rows stream past it.
void conv_block(const ConvStep& step, int64_t row, int64_t rows, int64_t first, int64_t last, int64_t tap = 0) {
  const Weight& weight = step.layer->weight;
  const int64_t group_panels = weight.group_panels();
  for (int64_t p = first; p < last; ++p) {
    const int64_t group = p / group_panels;
    const int64_t in_group = p % group_panels * weight.kernels->panel_columns;
    const int64_t column = group * weight.group_columns() + in_group;
    PanelArgs args;
    args.rows = rows;
    args.depth = weight.depth();
    args.columns = static_cast<int>(
        std::min<int64_t>(weight.kernels->panel_columns, weight.group_columns() - in_group));
    args.x = step.x.data + row * step.x.stride + group * weight.depth();
    args.x_stride = step.x.stride;
    args.panel = weight.panel(p, tap);
    args.c = step.y.data + row * step.y.stride + column;
    args.c_stride = step.y.stride;
    if (step.layer->bias) args.bias = step.layer->bias + column;
    if (step.residual.data) args.residual = step.residual.data + row * step.residual.stride + column;
    args.residual_stride = step.residual.stride;
    args.gelu = step.gelu;
    args.accumulate = step.accumulate;
    weight.kernels->grouped_conv1x1_panel(args);
  }
}

// Whether block g of the intermediate layer feeds block g of the output layer and no other.
bool blocks_line_up(const Ffn& ffn) {
  return ffn.intermediate->weight.shape.groups == ffn.output->weight.shape.groups;
}

struct FfnSplit {
  bool fused = false;
  Split rows{};
  int64_t groups = 1;
  int64_t stride = 0;  // of the intermediate values: of one group if fused, else of all
};

FfnSplit split_ffn(const Context& context, int64_t tokens, const Ffn& ffn) {
  FfnSplit split;
  const squeezebert_conv_shape& shape = ffn.intermediate->weight.shape;
  if (blocks_line_up(ffn)) {
    split.groups = shape.groups;
    split.stride = padded_stride(shape.out_channels / shape.groups);
    int64_t most = std::clamp<int64_t>(kFusedFloats / split.stride, 1, kRowBlock);
    const auto too_few = [&] { return split_rows(tokens, most).parts * split.groups < 2 * context.workers; };
    // Blocks of fewer than 32 rows would stream the weights for too little work each.
    while (context.workers > 1 && most > 32 && too_few()) most /= 2;
    split.rows = split_rows(tokens, most);
    split.fused = context.workers == 1 || split.rows.parts * split.groups >= context.workers;
  }
  if (!split.fused) split.stride = padded_stride(shape.out_channels);
  return split;
}

}  // namespace

void run_conv(Context& context, int64_t tokens, const ConvStep* steps, int count) {
  if (tokens == 0) return;
  int64_t panels = 0;
  for (int s = 0; s < count; ++s) panels += steps[s].layer->weight.all_panels();
  const Split rows = split_rows(tokens, kRowBlock);
  // With one worker a task is a row block and all panels; with more, panels are shared out as finely as there is need.
  const int64_t wanted = context.workers == 1 ? 1 : (kTasksPerWorker * context.workers + rows.parts - 1) / rows.parts;
  const Split chunks{panels, std::min(panels, wanted)};
  for_each_task(context, rows.parts * chunks.parts, [&](int64_t task, int32_t) {
    const int64_t block = task / chunks.parts;
    const int64_t row = rows.begin(block);
    int64_t first = chunks.begin(task % chunks.parts);
    int64_t last = chunks.begin(task % chunks.parts + 1);
    for (int s = 0; s < count; ++s) {
      const int64_t here = steps[s].layer->weight.all_panels();
      if (first < here && last > 0) {
        conv_block(steps[s], row, rows.begin(block + 1) - row, std::max<int64_t>(first, 0), std::min(last, here));
      }
      first -= here;
      last -= here;
    }
  });
}

void run_layer_norm(Context& context, int64_t tokens, int64_t channels, MutableRows matrix,
                    const squeezebert_layer_norm& norm) {
  if (tokens == 0) return;
  const Kernels& kernels = *active_kernels();
  const Split rows{tokens, std::min<int64_t>(tokens, context.workers)};
  for_each_task(context, rows.parts, [&](int64_t task, int32_t) {
    LayerNormArgs args;
    args.rows = rows.begin(task + 1) - rows.begin(task);
    args.channels = channels;
    args.y = matrix.data + rows.begin(task) * matrix.stride;
    args.y_stride = matrix.stride;
    args.x = args.y;
    args.x_stride = args.y_stride;
    args.weight = norm.weight;
    args.bias = norm.bias;
    args.epsilon = norm.epsilon;
    kernels.layer_norm(args);
  });
}

void run_embedding(Context& context, int64_t tokens, const int64_t* input_ids, const int64_t* token_type_ids,
                   const int64_t* position_ids, const squeezebert_embeddings& embeddings, MutableRows y) {
  if (tokens == 0) return;
  const Kernels& kernels = *active_kernels();
  const Split rows{tokens, std::min<int64_t>(tokens, context.workers)};
  for_each_task(context, rows.parts, [&](int64_t task, int32_t) {
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
    args.y = y.data + row * y.stride;
    args.y_stride = y.stride;
    kernels.embedding_layer_norm(args);
  });
}

void run_conv1d(Context& context, int64_t sequences, const int32_t* cu_seqlens, const Linear& layer, Rows x,
                MutableRows y) {
  const Weight& weight = layer.weight;
  const int64_t taps = weight.shape.kernel_size;
  const int64_t panels = weight.all_panels();
  for_each_task(context, sequences * panels, [&](int64_t task, int32_t) {
    const int64_t begin = cu_seqlens[task / panels];
    const int64_t length = cu_seqlens[task / panels + 1] - begin;
    if (length == 0) return;
    // The middle tap reaches every row and starts the sums; the others add to the rows whose neighbour lies inside.
    ConvStep step{&layer, x, y, {}, false};
    conv_block(step, begin, length, task % panels, task % panels + 1, taps / 2);
    step.accumulate = true;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t shift = tap - taps / 2;
      const int64_t first = std::max<int64_t>(0, -shift);
      const int64_t last = std::min(length, length - shift);
      if (shift == 0 || first >= last) continue;
      step.x.data = x.data + shift * x.stride;
      conv_block(step, begin + first, last - first, task % panels, task % panels + 1, tap);
    }
  });
}

FfnMemory ffn_memory(const Context& context, int64_t tokens, const Ffn& ffn) {
  const FfnSplit split = split_ffn(context, tokens, ffn);
  if (!split.fused) return {0, tokens * split.stride};
  const int64_t rows = split.rows.parts ? (tokens + split.rows.parts - 1) / split.rows.parts : 0;
  return {rows * split.stride, 0};
}

void run_ffn(Context& context, int64_t tokens, const Ffn& ffn, Rows x, MutableRows y, float* per_worker, float* shared) {
  if (tokens == 0) return;
  const FfnSplit split = split_ffn(context, tokens, ffn);
  const int64_t channels = ffn.output->weight.shape.out_channels;
  if (!split.fused) {
    const MutableRows hidden{shared, split.stride};
    const ConvStep first{ffn.intermediate, x, hidden, {}, true};
    const ConvStep second{ffn.output, hidden, y, x, false};
    run_conv(context, tokens, &first, 1);
    run_conv(context, tokens, &second, 1);
  } else {
    const int64_t scratch = ffn_memory(context, tokens, ffn).per_worker;
    const int64_t wide = ffn.intermediate->weight.group_columns();
    const int64_t first_panels = ffn.intermediate->weight.group_panels();
    const int64_t second_panels = ffn.output->weight.group_panels();
    for_each_task(context, split.rows.parts * split.groups, [&](int64_t task, int32_t worker) {
      const int64_t group = task % split.groups;
      const int64_t row = split.rows.begin(task / split.groups);
      const int64_t rows = split.rows.begin(task / split.groups + 1) - row;
      // The scratch holds this block's rows and this group's columns only: shift its origin to where all of them would be.
      const MutableRows hidden{per_worker + worker * scratch - row * split.stride - group * wide, split.stride};
      const ConvStep first{ffn.intermediate, x, hidden, {}, true};
      const ConvStep second{ffn.output, hidden, y, x, false};
      conv_block(first, row, rows, group * first_panels, (group + 1) * first_panels);
      conv_block(second, row, rows, group * second_panels, (group + 1) * second_panels);
    });
  }
  run_layer_norm(context, tokens, channels, y, *ffn.norm);
}

int64_t attention_memory(const Kernels& kernels, const squeezebert_attention_shape& shape) {
  int64_t longest = 0;
  for (int64_t s = 0; s < shape.sequences; ++s) {
    longest = std::max<int64_t>(longest, shape.key_offsets[s + 1] - shape.key_offsets[s]);
  }
  return (static_cast<int64_t>(kernels.attention_scratch(longest, shape.head_size)) + 15) / 16 * 16;
}

void run_attention(Context& context, const Kernels& kernels, const Attention& a, float* per_worker) {
  const squeezebert_attention_shape& shape = a.shape;
  const int64_t scratch = attention_memory(kernels, shape);
  const int64_t pairs = shape.sequences * shape.heads;
  if (pairs == 0) return;
  // One task per sequence and head; when that is too few for the workers, its queries are split too (each part then packs
  // the keys for itself).
  const int64_t parts =
      context.workers == 1 ? 1 : std::max<int64_t>(1, kTasksPerWorker * context.workers / (2 * pairs));
  for_each_task(context, pairs * parts, [&](int64_t task, int32_t worker) {
    const int64_t part = task % parts;
    const int64_t head = task / parts % shape.heads;
    const int64_t s = task / parts / shape.heads;
    const int64_t first_key = shape.key_offsets[s];
    const Split queries{shape.query_offsets[s + 1] - shape.query_offsets[s], parts};
    const int64_t first_query = shape.query_offsets[s] + queries.begin(part);
    const int64_t column = head * shape.head_size;
    AttentionArgs args;
    args.query_rows = queries.begin(part + 1) - queries.begin(part);
    if (args.query_rows == 0) return;
    args.key_rows = shape.key_offsets[s + 1] - first_key;
    args.head_size = shape.head_size;
    args.query = a.query.data + first_query * a.query.stride + column;
    args.query_stride = a.query.stride;
    args.key = a.key.data + first_key * a.key.stride + column;
    args.key_stride = a.key.stride;
    args.value = a.value.data + first_key * a.value.stride + column;
    args.value_stride = a.value.stride;
    if (a.mask) {
      args.mask = a.mask->data + s * a.mask->sequence_stride + head * a.mask->head_stride +
                  queries.begin(part) * a.mask->query_stride;
      args.mask_stride = a.mask->query_stride;
    }
    args.scale = shape.scale;
    args.output = a.output.data + first_query * a.output.stride + column;
    args.output_stride = a.output.stride;
    args.scratch = per_worker + worker * scratch;
    kernels.attention(args);
  });
}

}  // namespace squeezebert
