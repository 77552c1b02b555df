// attention, grouped_qkv_attention.
#include <torch/csrc/stable/ops.h>

#include <cmath>

#include "torch/arguments.h"
#include "torch/context.h"
#include "torch/operators.h"

namespace squeezebert::torch_ops {
namespace {

squeezebert_attention_shape Shape(const Sequences& queries, const Sequences& keys, int64_t num_heads, int64_t channels,
                                  std::optional<double> scale, squeezebert_format format) {
  const int64_t head_size = channels / num_heads;
  return {.struct_size = sizeof(squeezebert_attention_shape),
          .sequences = queries.count(),
          .query_offsets = queries.offsets.data(),
          .key_offsets = keys.offsets.data(),
          .heads = num_heads,
          .head_size = head_size,
          .scale = static_cast<float>(scale.value_or(1.0 / std::sqrt(static_cast<double>(head_size)))),
          .key_format = format,
          .value_format = format};
}

/// `tensor` has query's rank, its number of sequences and its channels.
void CheckBesideQuery(const Argument& name, const Tensor& tensor, const Tensor& query) {
  std::vector<int64_t> sizes = Sizes(query);
  const int64_t rank = query.dim();
  const bool same_rank = tensor.dim() == rank;
  if (same_rank) sizes[rank - 2] = tensor.size(rank - 2);
  if (!same_rank || Sizes(tensor) != sizes)
    Fail(name, "the shape of query, " + Text(Sizes(query)) + ", but for the number of tokens", Describe(tensor));
}

}  // namespace

Tensor Attention(const Tensor& query, const Tensor& key, const Tensor& value, int64_t num_heads,
                 const OptionalTensor& mask, std::optional<double> scale, OptionalDtype dtype) {
  const char* op = "attention";
  const Sequences queries = AsSequences({op, "query"}, query);
  CheckBesideQuery({op, "key"}, key, query);
  const Sequences keys = AsSequences({op, "key"}, key);
  if (Sizes(value) != Sizes(key)) Fail({op, "value"}, "the shape of key, " + Text(Sizes(key)), Describe(value));
  const Rows values = AsRows({op, "value"}, value);
  const int64_t channels = queries.rows.channels;
  CheckHeads(op, num_heads, channels);
  const squeezebert_format format = dtype.has_value() ? FormatOf({op, "dtype"}, *dtype) : SQUEEZEBERT_FLOAT32;
  const int64_t rank = query.dim();
  const Mask checked_mask = AsMask(op, mask, queries.count(), num_heads, query.size(rank - 2), key.size(rank - 2));
  Tensor output = EmptyRows(query, channels);
  if (queries.rows.rows == 0) return output;
  if (keys.rows.rows == 0) return torch::stable::zero_(output);  // nothing to attend to: an empty sum
  const squeezebert_attention_shape shape = Shape(queries, keys, num_heads, channels, scale, format);
  CheckStatus(op, squeezebert_attention(ThreadContext(op), &shape, queries.rows.data, queries.rows.stride,
                                        keys.rows.data, keys.rows.stride, values.data, values.stride,
                                        checked_mask.get(), output.mutable_data_ptr<float>(), channels));
  return output;
}

Tensor GroupedQkvAttention(const Tensor& input, const Tensor& query_weight, const OptionalTensor& query_bias,
                           const Tensor& key_weight, const OptionalTensor& key_bias, const Tensor& value_weight,
                           const OptionalTensor& value_bias, int64_t num_heads, const std::vector<int64_t>& groups,
                           const OptionalTensor& mask, const OptionalTensor& cu_seqlens, std::optional<double> scale,
                           OptionalDtype attention_dtype) {
  const char* op = "grouped_qkv_attention";
  const Sequences sequences = AsSequences({op, "input"}, input, cu_seqlens);
  const Rows& rows = sequences.rows;
  if (groups.size() != 3) Fail({op, "groups"}, "three group counts, [query, key, value]", Text(groups));
  const Linear query = AsLinear({{op, "query_weight"}, {op, "query_bias"}, {op, "groups[0]"}}, query_weight, query_bias,
                                groups[0], rows.channels, KernelSize::kOne);
  const Linear key = AsLinear({{op, "key_weight"}, {op, "key_bias"}, {op, "groups[1]"}}, key_weight, key_bias,
                              groups[1], rows.channels, KernelSize::kOne);
  const Linear value = AsLinear({{op, "value_weight"}, {op, "value_bias"}, {op, "groups[2]"}}, value_weight, value_bias,
                                groups[2], rows.channels, KernelSize::kOne);
  const int64_t channels = query.out_channels;
  const std::string expected = std::to_string(channels) + " output channels, as many as query_weight has";
  if (key.out_channels != channels) Fail({op, "key_weight"}, expected, std::to_string(key.out_channels));
  if (value.out_channels != channels) Fail({op, "value_weight"}, expected, std::to_string(value.out_channels));
  CheckHeads(op, num_heads, channels);
  const squeezebert_format format =
      attention_dtype.has_value() ? FormatOf({op, "attention_dtype"}, *attention_dtype) : query.format;
  const Mask checked_mask = AsSelfMask(op, mask, cu_seqlens, input, sequences.count(), num_heads);
  Tensor output = EmptyRows(input, channels);
  if (rows.rows == 0) return output;
  const squeezebert_attention_shape shape = Shape(sequences, sequences, num_heads, channels, scale, format);
  CheckStatus(op, squeezebert_grouped_qkv_attention(ThreadContext(op), &shape, rows.data, rows.stride, &query.view,
                                                    &key.view, &value.view, checked_mask.get(),
                                                    output.mutable_data_ptr<float>(), channels));
  return output;
}

}  // namespace squeezebert::torch_ops
