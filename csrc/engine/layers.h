// The engine's steps: each runs one region of the encoder over all tokens, split into tasks. The single operators are one
// or two of these steps, the encoder is all of them in turn.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/context.h"
#include "engine/pack.h"

namespace squeezebert {

// Rows of floats, `stride` apart.
struct Rows {
  const float* data = nullptr;
  ptrdiff_t stride = 0;
};
struct MutableRows {
  float* data = nullptr;
  ptrdiff_t stride = 0;
  operator Rows() const { return {data, stride}; }
};

struct Linear {
  Weight weight;
  const float* bias = nullptr;
};

// y = layer(x), then GELU or + residual. `residual` may be y itself.
struct ConvStep {
  const Linear* layer = nullptr;
  Rows x;
  MutableRows y;
  Rows residual;
  bool gelu = false;
  bool accumulate = false;  // add to what y holds, without the bias
};

// Runs up to three steps over the same rows as one region (Q, K and V; or one layer).
void run_conv(Context& context, int64_t tokens, const ConvStep* steps, int count);

// y[t] = bias + sum over taps of x[t + tap - taps / 2], within each sequence.
void run_conv1d(Context& context, int64_t sequences, const int32_t* cu_seqlens, const Linear& layer, Rows x, MutableRows y);

void run_embedding(Context& context, int64_t tokens, const int64_t* input_ids, const int64_t* token_type_ids,
                   const int64_t* position_ids, const squeezebert_embeddings& embeddings, MutableRows y);

void run_layer_norm(Context& context, int64_t tokens, int64_t channels, MutableRows rows, const squeezebert_layer_norm& norm);

// y = layer_norm(output(gelu(intermediate(x))) + x).
struct Ffn {
  const Linear* intermediate = nullptr;
  const Linear* output = nullptr;
  const squeezebert_layer_norm* norm = nullptr;
};
// Working memory: floats that every worker needs, and floats for all tokens together (`shared`, 64-byte aligned) where the
// blocks of the two layers do not line up or there is too little work to give a block to every worker.
struct FfnMemory {
  int64_t per_worker = 0;
  int64_t shared = 0;
};
FfnMemory ffn_memory(const Context& context, int64_t tokens, const Ffn& ffn);
void run_ffn(Context& context, int64_t tokens, const Ffn& ffn, Rows x, MutableRows y, float* per_worker, float* shared);

struct Attention {
  squeezebert_attention_shape shape{};
  Rows query;
  Rows key;
  Rows value;
  const squeezebert_mask* mask = nullptr;
  MutableRows output;
};
int64_t attention_memory(const Kernels& kernels, const squeezebert_attention_shape& shape);  // floats for every worker
void run_attention(Context& context, const Kernels& kernels, const Attention& attention, float* per_worker);

// Internal matrices have rows a cache line longer than a multiple of it: rows that are a multiple of 4 KiB apart would share
// their L1 sets and push each other out (a row stride of 3072 floats costs a fifth of the rate on Zen 4).
inline int64_t padded_stride(int64_t channels) { return (channels + 15) / 16 * 16 + 16; }

}  // namespace squeezebert
