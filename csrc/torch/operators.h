// The CPU bodies of torch.ops.squeezebert.*, argument for argument as library.cc declares them.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

namespace squeezebert::torch_ops {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using OptionalDtype = std::optional<torch::headeronly::ScalarType>;

Tensor PackGroupedConv1x1(const Tensor& weight, int64_t groups, OptionalDtype dtype);
Tensor PackGroupedConv1d(const Tensor& weight, int64_t groups, OptionalDtype dtype);
std::tuple<Tensor, Tensor> QuantizeWeight(const Tensor& weight);
Tensor PackQuantized(const Tensor& values, const Tensor& scale, int64_t groups);
std::tuple<Tensor, Tensor> UnpackQuantized(const Tensor& weight, int64_t in_channels, int64_t groups,
                                           int64_t kernel_size);
Tensor UnpackGroupedConv1x1(const Tensor& weight, int64_t in_channels, int64_t groups);
Tensor PackEncoderLayer(const std::vector<Tensor>& params, const std::vector<int64_t>& groups, double eps,
                        OptionalDtype attention_dtype);
void RepackEncoderLayer(const Tensor& packed, const std::vector<Tensor>& params);
std::vector<Tensor> UnpackEncoderLayer(const Tensor& layer, int64_t channels, int64_t intermediate_channels,
                                       const std::vector<int64_t>& groups);

Tensor GroupedConv1x1(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, int64_t groups);
Tensor GroupedConv1x1Gelu(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, int64_t groups);
Tensor GroupedConv1x1AddLayerNorm(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, int64_t groups,
                                  const Tensor& residual, const Tensor& ln_weight, const Tensor& ln_bias, double eps);
Tensor GroupedConv1d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, int64_t groups,
                     const OptionalTensor& cu_seqlens);
Tensor GroupedFfn(const Tensor& input, const Tensor& intermediate_weight, const OptionalTensor& intermediate_bias,
                  const Tensor& output_weight, const OptionalTensor& output_bias, const std::vector<int64_t>& groups,
                  const Tensor& ln_weight, const Tensor& ln_bias, double eps);

Tensor Attention(const Tensor& query, const Tensor& key, const Tensor& value, int64_t num_heads,
                 const OptionalTensor& mask, std::optional<double> scale, OptionalDtype dtype);
Tensor GroupedQkvAttention(const Tensor& input, const Tensor& query_weight, const OptionalTensor& query_bias,
                           const Tensor& key_weight, const OptionalTensor& key_bias, const Tensor& value_weight,
                           const OptionalTensor& value_bias, int64_t num_heads, const std::vector<int64_t>& groups,
                           const OptionalTensor& mask, const OptionalTensor& cu_seqlens, std::optional<double> scale,
                           OptionalDtype attention_dtype);

Tensor EmbeddingLayerNorm(const Tensor& input_ids, const OptionalTensor& token_type_ids,
                          const OptionalTensor& position_ids, const Tensor& word_embeddings,
                          const Tensor& position_embeddings, const Tensor& token_type_embeddings,
                          const Tensor& ln_weight, const Tensor& ln_bias, double eps);

Tensor EncoderLayer(const Tensor& input, const std::vector<Tensor>& params, int64_t num_heads,
                    const std::vector<int64_t>& groups, double eps, const OptionalTensor& mask,
                    const OptionalTensor& cu_seqlens);
Tensor Encoder(const Tensor& input, const std::vector<Tensor>& params, int64_t num_heads,
               const std::vector<int64_t>& groups, double eps, const OptionalTensor& mask,
               const OptionalTensor& cu_seqlens, bool first_token_only);

std::tuple<Tensor, Tensor> EncoderLayerTraining(const Tensor& input, const std::vector<Tensor>& params,
                                                int64_t num_heads, const std::vector<int64_t>& groups, double eps,
                                                const OptionalTensor& mask, const OptionalTensor& cu_seqlens,
                                                double hidden_dropout, double attention_dropout,
                                                const OptionalTensor& seed, bool recompute);
std::vector<Tensor> EncoderLayerTrainingBackward(const Tensor& grad_output, const Tensor& saved, const Tensor& input,
                                                 const std::vector<Tensor>& params, int64_t num_heads,
                                                 const std::vector<int64_t>& groups, double eps,
                                                 const OptionalTensor& mask, const OptionalTensor& cu_seqlens,
                                                 double hidden_dropout, double attention_dropout,
                                                 const OptionalTensor& seed, const std::vector<int64_t>& needs_grad);

}  // namespace squeezebert::torch_ops
