// The engine's steps. A layer is two regions: attention with its projections, where everything stays within a sequence
// and a group of channels; and all the rest, where everything stays within a token's row. Each region is split into
// tasks that run it from end to end on their own piece, so that what one step writes the next reads from L2. Where that
// gives too few tasks for the workers, the steps run one after the other, each split by itself.
//
// A step takes its working memory from its caller: step_floats(...) says how many floats, 64-byte aligned. It is run
// only with that much, so the sizes of the parts of a plan that was satisfied are not too large either.
// conv_floats(), and every size for one worker, serve fewer rows than they were asked for, too: parts of a call that
// are not all of one size share a plan. (So these count the rows that a block may have, not those of the largest of
// even blocks: 43 rows in blocks of up to 42 are two of at most 22, but 42 rows are one.)
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "engine/context.h"
#include "engine/pack.h"
#include "isa/cpu.h"

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

// Rows that one task takes at once. Beside 1 MiB of L2 128: of 768 floats they are 384 KiB, which stays there beside
// the panel (96 KiB) that the rows stream past; and a panel fetched from L3 or memory is used 128 times. Beside 512 KiB
// (Zen 3) 64 rows were no faster than 128, so there are never fewer.
inline int64_t row_block() { return std::clamp<int64_t>(level2_cache_bytes() / (8 << 10), 128, 512); }

inline Split split_rows(int64_t rows) { return {rows, (rows + row_block() - 1) / row_block()}; }

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

inline int64_t longest(const int32_t* offsets, int64_t sequences) {
  int64_t most = 0;
  for (int64_t s = 0; s < sequences; ++s) most = std::max<int64_t>(most, offsets[s + 1] - offsets[s]);
  return most;
}

struct Linear {
  Weight weight;
  const float* bias = nullptr;
};

struct Layer {
  Linear query, key, value, post_attention, intermediate, output;
  squeezebert_layer_norm post_attention_norm{};
  squeezebert_layer_norm output_norm{};
  squeezebert_format key_format{};
  squeezebert_format value_format{};
};

// Rows as a product takes them: those of x where they lie, or, where the product wants them otherwise, those prepared
// in `memory`, which has left_floats floats.
struct Left {
  const void* rows = nullptr;
  ptrdiff_t stride = 0;  // bytes
};
inline Size left_floats(const Product& product, int64_t rows, int64_t depth) {
  if (!product.left_stride) return 0;
  return Size(rows) * (product.left_stride(depth) / static_cast<int64_t>(sizeof(float)));
}
inline Left prepare_left(const Product& product, const LeftRows& x, float* memory, bool is_ready = false) {
  if (!product.left_stride) return {x.values, x.stride * static_cast<ptrdiff_t>(sizeof(float))};
  if (!is_ready) product.pack_left(x, memory);
  return {memory, product.left_stride(x.depth)};
}

// ---- conv.cc: one convolution, and what is row by row ---------------------------------------------------------------

// y = layer(x), then GELU or + residual.
struct ConvStep {
  const Linear* layer = nullptr;
  Rows x{};
  MutableRows y{};
  Rows residual{};
  bool gelu = false;
  bool accumulate = false;     // add to what y holds, without the bias
  bool left_is_ready = false;  // of the one group that is wanted: the memory for it holds these rows, for this product
  const void* next = nullptr;  // the weights wanted after these, fetched meanwhile; null: those that follow in memory
};

// Output panels [first, last) of one step, on the calling thread, in memory for its left side: left_floats of the rows.
void conv_panels(const ConvStep& step, int64_t rows, int64_t first, int64_t last, float* memory, int64_t tap = 0);
inline Size left_floats(const Linear& layer, int64_t rows) {
  return left_floats(*layer.weight.product, rows, layer.weight.depth());
}
// All of the steps; they have the same rows.
Size conv_floats(const Workers& workers, int64_t tokens, std::initializer_list<const Linear*> layers);
void run_conv(const Workers& workers, int64_t tokens, std::initializer_list<ConvStep> steps, float* memory);
// y[t] = bias + sum over taps of x[t + tap - taps / 2], within each sequence.
Size conv1d_floats(const Workers& workers, int64_t sequences, const int32_t* cu_seqlens, const Linear& layer);
void run_conv1d(const Workers& workers, int64_t sequences, const int32_t* cu_seqlens, const Linear& layer, Rows x,
                MutableRows y, float* memory);
void run_layer_norm(const Workers& workers, int64_t tokens, int64_t channels, MutableRows rows,
                    const squeezebert_layer_norm& norm);
void run_embedding(const Workers& workers, int64_t tokens, const int64_t* input_ids, const int64_t* token_type_ids,
                   const int64_t* position_ids, const squeezebert_embeddings& embeddings, MutableRows y);

// ---- attention.cc: the first region ---------------------------------------------------------------------------------

struct Attention {
  squeezebert_attention_shape shape{};
  const squeezebert_mask* mask = nullptr;
  Dropout dropout{};  // of the probabilities, for head 0 of sequence 0; the others' sites and sequences count on
};
Size attention_floats(const Workers& workers, const squeezebert_attention_shape& shape);
void run_attention(const Workers& workers, const Attention& attention, Rows query, Rows key, Rows value,
                   MutableRows output, float* memory);

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
