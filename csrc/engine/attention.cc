#include <algorithm>

#include "engine/head.h"
#include "engine/steps.h"

namespace squeezebert {

namespace {

HeadKernels head_kernels(const squeezebert_attention_shape& shape) {
  return {.scores = product_for(shape.key_format), .values = product_for(shape.value_format), .rows = row_kernels()};
}

Size scratch_floats(const squeezebert_attention_shape& shape) {
  return head_floats(head_kernels(shape), longest(shape.key_offsets, shape.sequences), shape.head_size);
}

// Part `part` of `parts` of the queries of one sequence, for one head.
struct HeadTask {
  int64_t sequence = 0;
  int64_t head = 0;
  int64_t key_row = 0;  // where the sequence's keys and values begin
  int64_t part = 0;
  int64_t parts = 1;
};

// query and output begin with the sequence's own first row.
void attend(const HeadKernels& kernels, const Attention& a, HeadTask task, Rows query, Rows key, Rows value,
            MutableRows output, float* scratch) {
  const squeezebert_attention_shape& shape = a.shape;
  const int64_t channel = task.head * shape.head_size;
  const Split queries{shape.query_offsets[task.sequence + 1] - shape.query_offsets[task.sequence], task.parts};
  const int64_t first = queries.begin(task.part);
  HeadArgs args;
  args.query_rows = queries.begin(task.part + 1) - first;
  if (args.query_rows == 0) return;
  args.key_rows = shape.key_offsets[task.sequence + 1] - shape.key_offsets[task.sequence];
  args.head_size = shape.head_size;
  args.query = query.at(first, channel);
  args.query_stride = query.stride;
  if (args.key_rows > 0) {
    args.key = key.at(task.key_row, channel);
    args.value = value.at(task.key_row, channel);
  }
  args.key_stride = key.stride;
  args.value_stride = value.stride;
  if (a.mask) {
    args.mask = a.mask->data + task.sequence * a.mask->sequence_stride + task.head * a.mask->head_stride +
                first * a.mask->query_stride;
    args.mask_stride = a.mask->query_stride;
  }
  args.scale = shape.scale;
  args.dropout = a.dropout;
  args.dropout.site += static_cast<uint32_t>(task.head);
  args.dropout.sequence = task.sequence;
  args.dropout.first_row = first;
  args.output = output.at(first, channel);
  args.output_stride = output.stride;
  run_head(kernels, args, scratch);
}

// Sequences are bundled until they have row_block() tokens together, so that short ones share a pass over the weights.
int64_t bundle_end(const squeezebert_attention_shape& shape, int64_t first) {
  int64_t last = first + 1;
  while (last < shape.sequences && shape.key_offsets[last + 1] - shape.key_offsets[first] <= row_block()) ++last;
  return last;
}

// What a task needs to run projections and attention of one group of one bundle from end to end.
struct FusedPlan {
  bool fused = false;
  int64_t bundles = 0;
  int64_t groups = 1;
  int64_t rows = 0;    // of the largest bundle
  int64_t stride = 0;  // of one group's queries, keys and values
  Size floats;         // for each worker
};

// Longer sequences go step by step. Beside 1 MiB of L2 longer than 1024 tokens: Q, K and V of one group of 192 channels
// are then 2.5 MiB, far beyond it.
int64_t fused_rows() { return std::max<int64_t>(level2_cache_bytes() / 1024, 256); }

FusedPlan plan_fused(const Workers& workers, const Projections& p, const squeezebert_attention_shape& shape) {
  FusedPlan plan;
  plan.groups = p.query->weight.shape.groups;
  // Group g of all three projections makes the same heads, and only those.
  const bool lines_up = p.key->weight.shape.groups == plan.groups && p.value->weight.shape.groups == plan.groups &&
                        shape.heads % plan.groups == 0;
  const int64_t tokens = shape.key_offsets[shape.sequences];
  if (!lines_up || shape.query_offsets[shape.sequences] != tokens) return plan;
  for (int64_t s = 0; s < shape.sequences; ++plan.bundles) {
    const int64_t end = bundle_end(shape, s);
    plan.rows = std::max<int64_t>(plan.rows, shape.key_offsets[end] - shape.key_offsets[s]);
    s = end;
  }
  plan.fused = plan.rows <= fused_rows() && enough_tasks(workers, plan.bundles * plan.groups);
  plan.stride = padded_stride(p.query->weight.group_columns());
  Size left;  // of a projection; attention takes its place afterwards
  for (const Linear* layer : {p.query, p.key, p.value}) left = std::max(left, left_floats(*layer, plan.rows));
  plan.floats = Size(3) * plan.rows * plan.stride + whole_lines(std::max(left, scratch_floats(shape)));
  return plan;
}

// Group by group, so that a group's weights (432 KiB of SqueezeBERT's) stay in L2 from bundle to bundle.
void run_fused(const Workers& workers, const FusedPlan& plan, const Projections& p, const Attention& a, Rows x,
               MutableRows output, float* memory) {
  const squeezebert_attention_shape& shape = a.shape;
  auto* const bundles = reinterpret_cast<int32_t*>(memory);  // the first sequence of each
  bundles[0] = 0;
  for (int64_t b = 0; b < plan.bundles; ++b) bundles[b + 1] = static_cast<int32_t>(bundle_end(shape, bundles[b]));
  float* const scratch = memory + whole_lines(plan.bundles + 1).count();

  const Linear* const layers[3] = {p.query, p.key, p.value};
  const HeadKernels kernels = head_kernels(shape);
  const int64_t columns = p.query->weight.group_columns();
  const int64_t heads = shape.heads / plan.groups;
  for_each_task(workers, plan.bundles * plan.groups, [&](int64_t task, int32_t worker) {
    const int64_t group = task / plan.bundles;
    const int32_t* const bundle = bundles + task % plan.bundles;
    const int64_t row = shape.key_offsets[bundle[0]];
    const int64_t rows = shape.key_offsets[bundle[1]] - row;
    if (rows == 0) return;
    float* const mine = scratch + worker * plan.floats.count();
    float* const step_memory = mine + 3 * plan.rows * plan.stride;
    const auto first_panel = [&](int layer) { return group * layers[layer]->weight.group_panels(); };
    MutableRows projected[3];
    for (int i = 0; i < 3; ++i) {
      projected[i] = {mine + i * plan.rows * plan.stride, plan.stride, group * columns};
      const ConvStep step{.layer = layers[i],
                          .x = x.from(row),
                          .y = projected[i],
                          .left_is_ready = i > 0 && layers[i]->weight.product == layers[i - 1]->weight.product,
                          .next = i < 2 ? layers[i + 1]->weight.panel(first_panel(i + 1)) : nullptr};
      conv_panels(step, rows, first_panel(i), first_panel(i) + layers[i]->weight.group_panels(), step_memory);
    }
    for (int64_t s = bundle[0]; s < bundle[1]; ++s) {
      const int64_t begin = shape.key_offsets[s];
      if (begin == shape.key_offsets[s + 1]) continue;
      for (int64_t h = group * heads; h < (group + 1) * heads; ++h) {
        attend(kernels, a, {.sequence = s, .head = h, .key_row = begin - row}, projected[0].from(begin - row),
               projected[1], projected[2], output.from(begin), step_memory);
      }
    }
  });
}

}  // namespace

Size attention_floats(const Workers& workers, const squeezebert_attention_shape& shape) {
  return whole_lines(shape.sequences) + workers.count * scratch_floats(shape);
}

void run_attention(const Workers& workers, const Attention& a, Rows query, Rows key, Rows value, MutableRows output,
                   float* memory) {
  // Sequences without a query get no tasks: there may be so many that even doing nothing for each of their heads would
  // take hours.
  auto* const sequences = reinterpret_cast<int32_t*>(memory);
  int64_t count = 0;
  for (int64_t s = 0; s < a.shape.sequences; ++s) {
    if (a.shape.query_offsets[s] < a.shape.query_offsets[s + 1]) sequences[count++] = static_cast<int32_t>(s);
  }
  const int64_t pairs = count * a.shape.heads;
  if (pairs == 0) return;
  const HeadKernels kernels = head_kernels(a.shape);
  float* const scratch = memory + whole_lines(a.shape.sequences).count();
  const int64_t floats = scratch_floats(a.shape).count();
  // One task per sequence and head; when those are too few, queries are split too (each part packs the keys for
  // itself).
  const int64_t parts = enough_tasks(workers, pairs) ? 1 : (2 * workers.count + pairs - 1) / pairs;
  for_each_task(workers, pairs * parts, [&](int64_t task, int32_t worker) {
    const int64_t s = sequences[task / parts / a.shape.heads];
    const int64_t first_query = a.shape.query_offsets[s];
    const HeadTask head = {.sequence = s,
                           .head = task / parts % a.shape.heads,
                           .key_row = a.shape.key_offsets[s],
                           .part = task % parts,
                           .parts = parts};
    attend(kernels, a, head, query.from(first_query), key, value, output.from(first_query), scratch + worker * floats);
  });
}

Size qkv_attention_floats(const Workers& workers, const Projections& p, const squeezebert_attention_shape& shape) {
  const FusedPlan plan = plan_fused(workers, p, shape);
  if (plan.fused) return whole_lines(plan.bundles + 1) + workers.count * plan.floats;
  return unfused_qkv_attention_floats(workers, p, shape);
}

// The projections' left sides and attention's working memory follow each other in one place.
Size unfused_qkv_attention_floats(const Workers& workers, const Projections& p,
                                  const squeezebert_attention_shape& shape) {
  const int64_t tokens = shape.key_offsets[shape.sequences];
  const Size left = conv_floats(workers, tokens, {p.query, p.key, p.value});
  return Size(3) * tokens * padded_stride(shape.heads * shape.head_size) +
         std::max(left, attention_floats(workers, shape));
}

void run_qkv_attention(const Workers& workers, const Projections& p, const Attention& a, Rows x_query, Rows x,
                       MutableRows output, float* memory) {
  const squeezebert_attention_shape& shape = a.shape;
  const int64_t queries = shape.query_offsets[shape.sequences];
  const int64_t tokens = shape.key_offsets[shape.sequences];
  const FusedPlan plan = plan_fused(workers, p, shape);
  if (plan.fused) return run_fused(workers, plan, p, a, x, output, memory);

  const ptrdiff_t stride = padded_stride(shape.heads * shape.head_size);
  const MutableRows query{memory, stride};
  const MutableRows key{query.data + tokens * stride, stride};
  const MutableRows value{key.data + tokens * stride, stride};
  float* const step_memory = value.data + tokens * stride;
  const ConvStep make_query{.layer = p.query, .x = x_query, .y = query, .next = p.key->weight.panels};
  const ConvStep make_key{.layer = p.key, .x = x, .y = key, .next = p.value->weight.panels};
  const ConvStep make_value{.layer = p.value, .x = x, .y = value};
  if (queries == tokens) {
    run_conv(workers, tokens, {make_query, make_key, make_value}, step_memory);
  } else {
    run_conv(workers, queries, {make_query}, step_memory);
    run_conv(workers, tokens, {make_key, make_value}, step_memory);
  }
  run_attention(workers, a, query, key, value, output, step_memory);
}

}  // namespace squeezebert
