// Argument checks shared by the C API's functions. Each names the argument, what was expected and what came.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "api/overlap.h"
#include "engine/steps.h"

namespace squeezebert {

// A pointer may be NULL only when there are no rows. The stride is checked even then, and when there is only one.
squeezebert_status check_matrix(const Matrix& matrix);
// The same of all, and that no float of the output is one of an input's.
squeezebert_status check_matrices(std::initializer_list<Matrix> inputs, const Matrix& output);

// `bytes` of memory as what shares some with it sees them; NULL has none.
Matrix flat(const char* name, const void* memory, int64_t bytes);
// That the output has none of a layer's weights and biases, or of a layer norm's of so many channels.
squeezebert_status check_apart(const Matrix& output, const char* name, const squeezebert_linear& layer,
                               const Linear& linear);
squeezebert_status check_apart(const Matrix& output, const char* name, const squeezebert_layer_norm& norm,
                               int64_t channels);

squeezebert_status check_format(const char* name, squeezebert_format format);
// Of attention with up to `keys` keys, which is how many values one output is a sum of.
squeezebert_status check_formats(squeezebert_format key_format, squeezebert_format value_format, int64_t head_size,
                                 int64_t keys);
squeezebert_status check_tokens(int64_t tokens);

// cu_seqlens starts at 0 and never decreases.
squeezebert_status check_offsets(const char* name, int64_t sequences, const int32_t* offsets);

squeezebert_status check_heads(int64_t heads, int64_t head_size);
squeezebert_status check_layer_norm(const char* name, const squeezebert_layer_norm* norm);
// A struct that begins with its size, of which this version knows `known` bytes; null is refused, too.
squeezebert_status check_struct(const char* name, const void* given, size_t known);

squeezebert_status check_scale(float scale);

// A mask for sequences and heads of this shape; `output` must not lie among its floats.
squeezebert_status check_mask(const squeezebert_mask* mask, const squeezebert_attention_shape& shape,
                              const Matrix& output);

// Decodes a layer and checks that it takes in_channels (when that is not 0), gives out_channels (likewise), and has
// kernel_size 1 unless `any_kernel_size`.
squeezebert_status read_linear(const char* name, const squeezebert_linear* layer, int64_t in_channels,
                               int64_t out_channels, Linear* linear, bool any_kernel_size = false);

}  // namespace squeezebert
