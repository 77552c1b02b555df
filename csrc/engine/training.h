// Training of a layer, in float32: a forward pass that keeps what its backward pass needs, and that backward pass.
//
// The same bits whatever the number of workers: all that is row by row is split by rows; attention by sequences and
// heads; and the gradients of weights, which are sums over all tokens, by their own rows and columns, each sum running
// over the tokens in order.
#pragma once

#include "engine/steps.h"

namespace squeezebert {

// What both passes are told.
struct Training {
  int64_t sequences = 0;
  const int32_t* cu_seqlens = nullptr;
  int64_t heads = 0;
  int64_t channels = 0;
  int64_t inner = 0;  // intermediate channels
  const squeezebert_mask* mask = nullptr;
  Dropout hidden;     // the layer's seed and how many are dropped: after post_attention and output
  Dropout attention;  // of probabilities

  int64_t tokens() const { return cu_seqlens[sequences]; }
};

// The sites of a layer's dropouts.
constexpr uint32_t kPostAttentionSite = 0, kOutputSite = 1, kAttentionSite = 2;  // + head

// What the forward pass keeps: a matrix each, of rows padded_stride() apart, in one piece of memory.
struct Saved {
  MutableRows query, key, value, context;
  MutableRows post_attention_normal;  // before LayerNorm's weight and bias
  MutableRows intermediate;           // before GELU
  MutableRows output_normal;
  float* post_attention_scales = nullptr;  // [tokens]
  float* output_scales = nullptr;
};
Size saved_floats(int64_t tokens, int64_t channels, int64_t inner);
Saved saved_in(float* memory, int64_t tokens, int64_t channels, int64_t inner);

Attention training_attention(const Training& training);
// Calls body(its first row, rows, where they stand) for the rows of each sequence among [begin, end).
template <class Body>
void for_each_sequence(const Training& t, Dropout dropout, uint32_t site, int64_t begin, int64_t end,
                       const Body& body) {
  const int32_t* const last = t.cu_seqlens + t.sequences + 1;
  dropout.site = site;
  for (int64_t row = begin; row < end;) {
    const int32_t* const next = std::upper_bound(t.cu_seqlens, last, static_cast<int32_t>(row));
    const int64_t stop = std::min<int64_t>(end, *next);
    dropout.sequence = next - t.cu_seqlens - 1;
    dropout.first_row = row - next[-1];
    body(row, stop - row, dropout);
    row = stop;
  }
}
// y = dropout(x), rows [begin, end) of the batch; a plain copy where none is dropped.
void run_dropout(const Training& training, uint32_t site, int64_t begin, int64_t end, Rows x, MutableRows y);

// Rows of one task: row_block(), or fewer where the workers would have too few tasks.
Split training_rows(const Workers& workers, int64_t tokens);

Size training_forward_floats(const Workers& workers, const Training& training, const Layer& layer);
void run_training_forward(const Workers& workers, const Training& training, const Layer& layer, Rows x, MutableRows y,
                          const Saved& saved, float* memory);

// Where gradients go; null: not wanted. They are overwritten.
struct LinearGradient {
  float* weight = nullptr;  // [out_channels, in_channels / groups]
  float* bias = nullptr;
  bool wanted() const { return weight || bias; }
};
struct LayerGradients {
  MutableRows input{};
  LinearGradient query, key, value, post_attention, post_attention_norm, intermediate, output, output_norm;
};

// `transposed` has the layer's weights transposed within each group, so that a gradient of an output is their input.
Size backward_floats(const Workers& workers, const Training& training, const Layer& transposed);
void run_backward(const Workers& workers, const Training& training, const Layer& transposed, Rows x, const Saved& saved,
                  Rows grad_output, const LayerGradients& gradients, float* memory);

// ---- attention_backward.cc ------------------------------------------------------------------------------------------

struct AttentionGradients {
  MutableRows query, key, value;
};
Size attention_backward_floats(const Workers& workers, const Training& training);
void run_attention_backward(const Workers& workers, const Training& training, const Saved& saved, Rows grad_context,
                            const AttentionGradients& gradients, float* memory);

// ---- parameter_gradients.cc -----------------------------------------------------------------------------------------

// weight = grad_y^T x within each group, bias = the sums of grad_y's columns. Of a LayerNorm (in_channels = 0) weight =
// the sums of grad_y's columns times those of x.
struct GradientStep {
  LinearGradient to{};
  Rows grad_y{};
  Rows x{};
  int64_t out_channels = 0;
  int64_t in_channels = 0;  // 0: of a LayerNorm
  int64_t groups = 1;
};
Size parameter_gradients_floats(const Workers& workers);
void run_parameter_gradients(const Workers& workers, int64_t tokens, std::initializer_list<GradientStep> steps,
                             float* memory);

}  // namespace squeezebert
