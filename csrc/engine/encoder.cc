#include "engine/encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace squeezebert {

squeezebert_attention_shape attention_shape(const Encoder& e, const Layer& layer, const int32_t* query_offsets) {
  const int64_t head_size = e.channels / e.shape.heads;
  return {.struct_size = sizeof(squeezebert_attention_shape),
          .sequences = e.shape.sequences,
          .query_offsets = query_offsets,
          .key_offsets = e.shape.cu_seqlens,
          .heads = e.shape.heads,
          .head_size = head_size,
          .scale = 1.0f / std::sqrt(static_cast<float>(head_size)),
          .key_format = layer.key_format,
          .value_format = layer.value_format};
}

namespace {

// The working memory of a call. Attention's and the second region's own memory are the same: neither outlives its
// region.
struct Memory {
  ptrdiff_t stride = 0;
  Size context;  // attention's output
  Size x;        // between layers
  Size first;    // first_token_only: those rows of the last layer's input, and their offsets
  Size offsets;
  Size step;
  Size all() const { return context + x + first + offsets + step; }
};

Memory plan_memory(const Workers& workers, const Encoder& e) {
  const int64_t tokens = e.shape.cu_seqlens[e.shape.sequences];
  Memory memory;
  memory.stride = padded_stride(e.channels);
  memory.context = Size(tokens) * memory.stride;
  if (e.layer_count > 1) memory.x = memory.context;
  if (e.shape.first_token_only) {
    memory.first = Size(e.shape.sequences) * memory.stride;
    memory.offsets = whole_lines(e.shape.sequences + 1);
  }
  for (int64_t l = 0; l < e.layer_count; ++l) {
    const Layer& layer = e.layers[l];
    const bool first_only = e.shape.first_token_only && l + 1 == e.layer_count;
    const Projections projections{&layer.query, &layer.key, &layer.value};
    const squeezebert_attention_shape shape = attention_shape(e, layer, e.shape.cu_seqlens);
    memory.step = std::max(memory.step, qkv_attention_floats(workers, projections, shape));
    if (first_only) memory.step = std::max(memory.step, unfused_qkv_attention_floats(workers, projections, shape));
    memory.step =
        std::max(memory.step, after_attention_floats(workers, first_only ? e.shape.sequences : tokens, layer));
  }
  return memory;
}

}  // namespace

squeezebert_status run_encoder(Context& context, const Encoder& e, Rows x, MutableRows y) {
  const int64_t tokens = e.shape.cu_seqlens[e.shape.sequences];
  if (tokens == 0) return SQUEEZEBERT_OK;
  const Workers& workers = context.workers;
  const Memory memory = plan_memory(workers, e);
  auto* base = static_cast<float*>(context.working.reserve(memory.all() * sizeof(float)));
  if (!base) return SQUEEZEBERT_OUT_OF_MEMORY;
  const MutableRows attended{base, memory.stride};
  const MutableRows between{attended.data + memory.context.count(), memory.stride};
  const MutableRows first{between.data + memory.x.count(), memory.stride};
  auto* const first_offsets = reinterpret_cast<int32_t*>(first.data + memory.first.count());
  float* const step_memory = first.data + (memory.first + memory.offsets).count();

  for (int64_t l = 0; l < e.layer_count; ++l) {
    const Layer& layer = e.layers[l];
    const bool last = l + 1 == e.layer_count;
    int64_t rows = tokens;
    Rows x_query = x;
    const int32_t* query_offsets = e.shape.cu_seqlens;
    if (last && e.shape.first_token_only) {
      rows = e.shape.sequences;
      for (int64_t s = 0; s < rows; ++s) {
        std::memcpy(first.at(s, 0), x.at(e.shape.cu_seqlens[s], 0), static_cast<size_t>(e.channels) * sizeof(float));
      }
      for (int64_t s = 0; s <= rows; ++s) first_offsets[s] = static_cast<int32_t>(s);
      x_query = first;
      query_offsets = first_offsets;
    }
    run_qkv_attention(workers, {&layer.query, &layer.key, &layer.value},
                      {attention_shape(e, layer, query_offsets), e.mask}, x_query, x, attended, step_memory);
    const MutableRows next = last ? y : between;
    run_after_attention(workers, rows, layer, attended, x_query, next, step_memory);
    x = next;
  }
  return SQUEEZEBERT_OK;
}

}  // namespace squeezebert
