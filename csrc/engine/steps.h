// The engine's steps. A layer is two regions: attention with its projections, where everything stays within a sequence
// and a group of channels; and all the rest, where everything stays within a token's row. Each region is split into
// tasks that run it from end to end on their own piece, so that what one step writes the next reads from L2. Where that
// gives too few tasks for the workers, the steps run one after the other, each split by itself.
//
// A step takes its working memory from its caller: step_floats(...) says how many floats, 64-byte aligned. It is run
// only with that much, so the sizes of the parts of a plan that was satisfied are not too large either.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/context.h"
#include "engine/pack.h"

namespace squeezebert {

// A matrix of tokens by channels, of which the channels from first_channel on are there. Only addresses of rows that
// exist are formed: a stride may be so large that the one past the last has none.
struct Rows {
  const float* data = nullptr;
  ptrdiff_t stride = 0;
  int64_t first_channel = 0;

  const float* at(int64_t row, int64_t channel) const { return data + row * stride + (channel - first_channel); }
  Rows from(int64_t row) const { return {data + row * stride, stride, first_channel}; }
};
struct MutableRows {
  float* data = nullptr;
  ptrdiff_t stride = 0;
  int64_t first_channel = 0;

  operator Rows() const { return {data, stride, first_channel}; }
  float* at(int64_t row, int64_t channel) const { return data + row * stride + (channel - first_channel); }
  MutableRows from(int64_t row) const { return {data + row * stride, stride, first_channel}; }
};

// `total` items in `parts` pieces as even as they can be.
struct Split {
  int64_t total = 0;
  int64_t parts = 0;

  int64_t begin(int64_t part) const { return total * part / parts; }
  int64_t most() const { return parts ? (total + parts - 1) / parts : 0; }
};

// Rows that one task takes at once: 128 rows of 768 floats are 384 KiB, which stays in a 1 MiB L2 beside the panel (96
// KiB) that the rows stream past; and a panel fetched from L3 or memory is used 128 times.
constexpr int64_t kRowBlock = 128;

inline Split split_rows(int64_t rows) { return {rows, (rows + kRowBlock - 1) / kRowBlock}; }

// Enough pieces to keep every worker busy until all are nearly done; with one worker, any number is.
inline bool enough_tasks(const Workers& workers, int64_t tasks) {
  return workers.count == 1 || tasks >= 2 * workers.count;
}

// Working memory is handed out in cache lines, and its matrices have rows an odd number of cache lines apart: rows a
// multiple of 4 KiB apart would share their L1 sets and push each other out (a row stride of 3072 floats costs a fifth
// of the rate on Zen 4).
constexpr int64_t kLineFloats = 16;
inline Size whole_lines(Size floats) { return floats.rounded_up(kLineFloats); }
// Channels are below 2^31, so a stride needs no checking.
inline int64_t padded_stride(int64_t channels) {
  return ((channels + kLineFloats - 1) / kLineFloats | 1) * kLineFloats;
}

struct Linear {
  Weight weight;
  const float* bias = nullptr;
};

struct Layer {
  Linear query, key, value, post_attention, intermediate, output;
  squeezebert_layer_norm post_attention_norm{};
  squeezebert_layer_norm output_norm{};
};

// ---- conv.cc: one convolution, and what is row by row ---------------------------------------------------------------

// y = layer(x), then GELU or + residual.
struct ConvStep {
  const Linear* layer = nullptr;
  Rows x;
  MutableRows y;
  Rows residual;
  bool gelu = false;
  bool accumulate = false;     // add to what y holds, without the bias
  const void* next = nullptr;  // the weights wanted after these, fetched meanwhile; null: those that follow in memory
};

// Output panels [first, last) of one step, on the calling thread.
void conv_panels(const ConvStep& step, int64_t rows, int64_t first, int64_t last, int64_t tap = 0);
// All of the steps; they have the same rows.
void run_conv(const Workers& workers, int64_t tokens, const ConvStep* steps, int count);
// y[t] = bias + sum over taps of x[t + tap - taps / 2], within each sequence.
void run_conv1d(const Workers& workers, int64_t sequences, const int32_t* cu_seqlens, const Linear& layer, Rows x,
                MutableRows y);
void run_layer_norm(const Workers& workers, int64_t tokens, int64_t channels, MutableRows rows,
                    const squeezebert_layer_norm& norm);
void run_embedding(const Workers& workers, int64_t tokens, const int64_t* input_ids, const int64_t* token_type_ids,
                   const int64_t* position_ids, const squeezebert_embeddings& embeddings, MutableRows y);

// ---- attention.cc: the first region ---------------------------------------------------------------------------------

struct Attention {
  squeezebert_attention_shape shape{};
  const squeezebert_mask* mask = nullptr;
};
Size attention_floats(const Workers& workers, const Kernels& kernels, const squeezebert_attention_shape& shape);
void run_attention(const Workers& workers, const Kernels& kernels, const Attention& attention, Rows query, Rows key,
                   Rows value, MutableRows output, float* memory);

struct Projections {
  const Linear* query = nullptr;
  const Linear* key = nullptr;
  const Linear* value = nullptr;
};
// Queries are taken from the rows of x_query, keys and values from those of x; the shape's offsets say which.
Size qkv_attention_floats(const Workers& workers, const Projections& projections,
                          const squeezebert_attention_shape& shape);
// The same where only some rows' queries are wanted.
Size unfused_qkv_attention_floats(const Workers& workers, const Projections& projections,
                                  const squeezebert_attention_shape& shape);
void run_qkv_attention(const Workers& workers, const Projections& projections, const Attention& attention, Rows x_query,
                       Rows x, MutableRows output, float* memory);

// ---- ffn.cc: the second region --------------------------------------------------------------------------------------

// y = layer_norm(output(gelu(intermediate(x))) + x).
struct Ffn {
  const Linear* intermediate = nullptr;
  const Linear* output = nullptr;
  const squeezebert_layer_norm* norm = nullptr;
};
Size ffn_floats(const Workers& workers, int64_t tokens, const Ffn& ffn);
void run_ffn(const Workers& workers, int64_t tokens, const Ffn& ffn, Rows x, MutableRows y, float* memory);

// Everything of a layer after attention: y = ffn(layer_norm(post_attention(context) + x)). y may be x.
Size after_attention_floats(const Workers& workers, int64_t tokens, const Layer& layer);
void run_after_attention(const Workers& workers, int64_t tokens, const Layer& layer, Rows context, Rows x,
                         MutableRows y, float* memory);

}  // namespace squeezebert
