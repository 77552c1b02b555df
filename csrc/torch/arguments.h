// Tensors as the C API takes them. Each As* function checks one argument (or one that belongs to another) and returns a
// view together with the tensor that keeps it alive: the caller's own where its strides allow that, else a copy.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "squeezebert.h"
#include "torch/check.h"

namespace squeezebert::torch_ops {

/// A float32 tensor as a matrix of tokens: rows * [channels], channels next to each other, rows `stride` floats apart.
struct Rows {
  Tensor owner;
  const float* data;
  int64_t rows;
  int64_t channels;
  int64_t stride;
};

/// Any tensor of rank >= 1; all dimensions but the last become rows. Copies only if they do not lie one stride apart.
Rows AsRows(const Argument& argument, const Tensor& tensor);

/// A fresh contiguous output: `like`'s sizes with `channels` for the last.
Tensor EmptyRows(const Tensor& like, int64_t channels);

/// Rows that form sequences, and where each begins: sequences + 1 offsets.
struct Sequences {
  Rows rows;
  std::vector<int32_t> offsets;
  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

/// [N, S, C] (N sequences), [S, C] (one).
Sequences AsSequences(const Argument& argument, const Tensor& tensor);

/// The same, or packed tokens [T, C] when cu_seqlens is given: int32 offsets, first 0, never decreasing, last T.
Sequences AsSequences(const Argument& argument, const Tensor& tensor, const std::optional<Tensor>& cu_seqlens);

/// The arguments that make one grouped convolution, by name.
struct LinearNames {
  Argument weight;
  Argument bias;
  Argument groups;
};

/// A packed weight, what it is packed as, and its bias.
struct Linear {
  squeezebert_format format;
  Tensor packed_owner;
  Tensor bias_owner;
  squeezebert_linear view;
  int64_t out_channels;
};

/// Which kernel sizes a weight may have.
enum class KernelSize { kOne, kAnyOdd };

/// The layer that takes `in_channels`. A packed weight (uint8) is used as it is; a plain one is packed for this call.
Linear AsLinear(const LinearNames& names, const Tensor& weight, const std::optional<Tensor>& bias, int64_t groups,
                int64_t in_channels, KernelSize kernel_size);

/// The bytes of what is packed, contiguous, and aligned as floats are: a view into other bytes, say of a file, may
/// begin anywhere.
Tensor AlignedBytes(const Tensor& packed);

/// The format of the dtype's name.
squeezebert_format FormatOf(const Argument& argument, ScalarType dtype);

/// The shape of [out, in / groups] or [out, in / groups, K] and of its group count, checked, against the input's
/// channels where there is an input.
squeezebert_conv_shape ConvShape(const Argument& weight_name, const Argument& groups_name, const Tensor& weight,
                                 int64_t groups, KernelSize kernel_size, std::optional<int64_t> in_channels);

/// The same of a plain weight on the CPU, of a dtype that is a format.
squeezebert_conv_shape PlainShape(const Argument& weight_name, const Argument& groups_name, const Tensor& weight,
                                  int64_t groups, KernelSize kernel_size, std::optional<int64_t> in_channels);

/// uint8 [out, bytes per channel], to be packed into: what is left at its end is zero.
Tensor EmptyPacked(const char* op, const Tensor& like, const squeezebert_conv_shape& shape, squeezebert_format format);

/// Packs a plain weight, [out, in / groups] or [out, in / groups, K], as `dtype` (its own, if there is none) into a
/// uint8 tensor [out, bytes per channel].
Tensor Pack(const char* op, const Tensor& weight, int64_t groups, KernelSize kernel_size,
            std::optional<ScalarType> dtype);

/// A plain float32 weight of the layer that takes `in_channels`, transposed within each group: the layer that takes the
/// gradient of its output to that of its input. Without a bias; out_channels is the plain weight's.
Linear AsTransposedLinear(const LinearNames& names, const Tensor& weight, int64_t groups, int64_t in_channels);

struct LayerNorm {
  Tensor weight_owner;
  Tensor bias_owner;
  squeezebert_layer_norm view;
};

LayerNorm AsLayerNorm(const Argument& weight_name, const Tensor& weight, const Argument& bias_name, const Tensor& bias,
                      float epsilon, int64_t channels);

/// An additive mask, broadcast over [sequences, heads, queries, keys] by strides. `get()` is null without a mask.
struct Mask {
  std::optional<Tensor> owner;
  squeezebert_mask view{};
  const squeezebert_mask* get() const { return owner.has_value() ? &view : nullptr; }
};

Mask AsMask(const char* op, const std::optional<Tensor>& mask, int64_t sequences, int64_t heads, int64_t queries,
            int64_t keys);

/// The mask of self-attention over `input`, which cannot come together with cu_seqlens.
Mask AsSelfMask(const char* op, const std::optional<Tensor>& mask, const std::optional<Tensor>& cu_seqlens,
                const Tensor& input, int64_t sequences, int64_t heads);

}  // namespace squeezebert::torch_ops
