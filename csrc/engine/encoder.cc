#include "engine/encoder.h"

#include <algorithm>
#include <cstring>

namespace squeezebert {

namespace {

// Hands out 64-byte-aligned pieces of the working memory. The first time round there is no memory yet, only the count.
class Arena {
 public:
  explicit Arena(float* base = nullptr) : base_(base) {}
  float* take(int64_t floats) {
    float* piece = base_ ? base_ + used_ : nullptr;
    used_ += (floats + 15) / 16 * 16;
    return piece;
  }
  size_t bytes() const { return static_cast<size_t>(used_) * sizeof(float); }

 private:
  float* base_;
  int64_t used_ = 0;
};

int64_t tokens_of(const squeezebert_attention_shape& shape) { return shape.key_offsets[shape.sequences]; }

struct QkvMemory {
  MutableRows query, key, value;
};

QkvMemory take_qkv(Arena& arena, int64_t tokens, int64_t channels) {
  const ptrdiff_t stride = padded_stride(channels);
  QkvMemory memory;
  for (MutableRows* rows : {&memory.query, &memory.key, &memory.value}) *rows = {arena.take(tokens * stride), stride};
  return memory;
}

// x_query: the rows whose queries are wanted, all of x or the first of each sequence.
void run_qkv_attention(Context& context, const QkvAttention& a, Rows x_query, Rows x, const QkvMemory& memory,
                       float* per_worker, MutableRows y) {
  const int64_t queries = a.shape.query_offsets[a.shape.sequences];
  const ConvStep steps[3] = {{a.query, x_query, memory.query, {}, false},
                             {a.key, x, memory.key, {}, false},
                             {a.value, x, memory.value, {}, false}};
  if (queries == tokens_of(a.shape)) {
    run_conv(context, queries, steps, 3);
  } else {
    run_conv(context, queries, steps, 1);
    run_conv(context, tokens_of(a.shape), steps + 1, 2);
  }
  run_attention(context, *a.query->weight.kernels, {a.shape, memory.query, memory.key, memory.value, a.mask, y}, per_worker);
}

struct EncoderMemory {
  QkvMemory qkv;
  MutableRows context;     // the attention's output
  float* shared = nullptr;  // the unfused FFN's intermediate values; the same memory as qkv and context, dead by then
  MutableRows middle;      // between attention and FFN
  MutableRows x;           // between layers
  MutableRows first;       // first_token_only: those rows of the last layer's input
  int32_t* first_offsets = nullptr;
  float* per_worker = nullptr;
  size_t bytes = 0;
};

squeezebert_attention_shape attention_shape(const Encoder& e) {
  return {e.shape.sequences, e.shape.cu_seqlens, e.shape.cu_seqlens, e.shape.heads, e.channels / e.shape.heads, e.scale};
}

EncoderMemory take_memory(const Context& context, const Encoder& e, float* base) {
  const int64_t tokens = e.shape.cu_seqlens[e.shape.sequences];
  const ptrdiff_t stride = padded_stride(e.channels);
  int64_t shared = 0;
  int64_t per_worker = 0;
  for (int64_t l = 0; l < e.layer_count; ++l) {
    const Layer& layer = e.layers[l];
    for (const int64_t rows : {tokens, e.shape.sequences}) {
      const FfnMemory memory = ffn_memory(context, rows, {&layer.intermediate, &layer.output, nullptr});
      shared = std::max(shared, memory.shared);
      per_worker = std::max(per_worker, memory.per_worker);
    }
    per_worker = std::max(per_worker, attention_memory(*layer.query.weight.kernels, attention_shape(e)));
  }

  Arena arena(base);
  EncoderMemory m;
  m.shared = base;
  m.qkv = take_qkv(arena, tokens, e.channels);
  m.context = {arena.take(tokens * stride), stride};
  arena.take(std::max<int64_t>(0, shared - 4 * tokens * stride));
  m.middle = {arena.take(tokens * stride), stride};
  m.x = {arena.take(tokens * stride), stride};
  if (e.shape.first_token_only) {
    m.first = {arena.take(e.shape.sequences * stride), stride};
    m.first_offsets = reinterpret_cast<int32_t*>(arena.take(e.shape.sequences + 1));
  }
  m.per_worker = arena.take(per_worker * context.workers);
  m.bytes = arena.bytes();
  return m;
}

}  // namespace

squeezebert_status qkv_attention(Context& context, const QkvAttention& a, Rows x, MutableRows y) {
  const int64_t channels = a.shape.heads * a.shape.head_size;
  QkvMemory qkv;
  float* per_worker = nullptr;
  const auto take = [&](Arena arena, QkvMemory* qkv, float** per_worker) {
    *qkv = take_qkv(arena, tokens_of(a.shape), channels);
    *per_worker = arena.take(attention_memory(*a.query->weight.kernels, a.shape) * context.workers);
    return arena.bytes();
  };
  auto* base = static_cast<float*>(context.working.reserve(take(Arena(), &qkv, &per_worker)));
  if (!base) return SQUEEZEBERT_OUT_OF_MEMORY;
  take(Arena(base), &qkv, &per_worker);
  run_qkv_attention(context, a, x, x, qkv, per_worker, y);
  return SQUEEZEBERT_OK;
}

squeezebert_status attention(Context& context, const Kernels& kernels, const Attention& a) {
  const size_t bytes = static_cast<size_t>(attention_memory(kernels, a.shape) * context.workers) * sizeof(float);
  auto* base = static_cast<float*>(context.working.reserve(bytes));
  if (!base) return SQUEEZEBERT_OUT_OF_MEMORY;
  run_attention(context, kernels, a, base);
  return SQUEEZEBERT_OK;
}

squeezebert_status ffn(Context& context, int64_t tokens, const Ffn& ffn, Rows x, MutableRows y) {
  const FfnMemory memory = ffn_memory(context, tokens, ffn);
  const int64_t per_worker = memory.per_worker * context.workers;
  const size_t bytes = static_cast<size_t>(per_worker + memory.shared) * sizeof(float);
  auto* base = static_cast<float*>(context.working.reserve(bytes));
  if (!base) return SQUEEZEBERT_OUT_OF_MEMORY;
  run_ffn(context, tokens, ffn, x, y, base, base + per_worker);
  return SQUEEZEBERT_OK;
}

squeezebert_status encoder(Context& context, const Encoder& e, Rows x, MutableRows y) {
  const int64_t tokens = e.shape.cu_seqlens[e.shape.sequences];
  if (tokens == 0) return SQUEEZEBERT_OK;
  auto* base = static_cast<float*>(context.working.reserve(take_memory(context, e, nullptr).bytes));
  if (!base) return SQUEEZEBERT_OUT_OF_MEMORY;
  const EncoderMemory m = take_memory(context, e, base);

  const bool first_only = e.shape.first_token_only != 0;
  for (int64_t l = 0; l < e.layer_count; ++l) {
    const Layer& layer = e.layers[l];
    QkvAttention attention{&layer.query, &layer.key, &layer.value, attention_shape(e), e.mask};
    const bool last = l + 1 == e.layer_count;
    int64_t rows = tokens;
    Rows x_query = x;
    if (last && first_only) {
      rows = e.shape.sequences;
      for (int64_t s = 0; s < rows; ++s) {
        std::memcpy(m.first.data + s * m.first.stride, x.data + e.shape.cu_seqlens[s] * x.stride,
                    static_cast<size_t>(e.channels) * sizeof(float));
      }
      for (int64_t s = 0; s <= rows; ++s) m.first_offsets[s] = static_cast<int32_t>(s);
      x_query = m.first;
      attention.shape.query_offsets = m.first_offsets;
    }
    run_qkv_attention(context, attention, x_query, x, m.qkv, m.per_worker, m.context);
    const ConvStep post{&layer.post_attention, m.context, m.middle, x_query, false};
    run_conv(context, rows, &post, 1);
    run_layer_norm(context, rows, e.channels, m.middle, layer.post_attention_norm);
    const MutableRows next = last ? y : m.x;
    run_ffn(context, rows, {&layer.intermediate, &layer.output, &layer.output_norm}, m.middle, next, m.per_worker, m.shared);
    x = next;
  }
  return SQUEEZEBERT_OK;
}

}  // namespace squeezebert
