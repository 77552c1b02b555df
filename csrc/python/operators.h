// The NumPy entry points; module.cc documents each for Python.
#pragma once

#include <optional>
#include <vector>

#include "python/weights.h"

namespace squeezebert::python {

using Output = py::array_t<float>;

Output GroupedConv1x1(const py::array& input, const PackedWeight& weight, const OptionalArray& bias);

Output GroupedConv1x1Gelu(const py::array& input, const PackedWeight& weight, const OptionalArray& bias);

Output GroupedConv1x1AddLayerNorm(const py::array& input, const PackedWeight& weight, const OptionalArray& bias,
                                  const py::array& residual, const py::array& ln_weight, const py::array& ln_bias,
                                  float eps);

Output GroupedConv1d(const py::array& input, const PackedWeight& weight, const OptionalArray& bias,
                     const OptionalArray& cu_seqlens);

Output Attention(const py::array& query, const py::array& key, const py::array& value, int64_t num_heads,
                 const OptionalArray& mask, std::optional<float> scale, const std::string& dtype);

Output GroupedQkvAttention(const py::array& input, const PackedWeight& query_weight, const OptionalArray& query_bias,
                           const PackedWeight& key_weight, const OptionalArray& key_bias,
                           const PackedWeight& value_weight, const OptionalArray& value_bias, int64_t num_heads,
                           const OptionalArray& mask, const OptionalArray& cu_seqlens, std::optional<float> scale,
                           const std::optional<std::string>& attention_dtype);

Output GroupedFfn(const py::array& input, const PackedWeight& intermediate_weight,
                  const OptionalArray& intermediate_bias, const PackedWeight& output_weight,
                  const OptionalArray& output_bias, const py::array& ln_weight, const py::array& ln_bias, float eps);

Output EmbeddingLayerNorm(const py::array& input_ids, const OptionalArray& token_type_ids,
                          const OptionalArray& position_ids, const py::array& word_embeddings,
                          const py::array& position_embeddings, const py::array& token_type_embeddings,
                          const py::array& ln_weight, const py::array& ln_bias, float eps);

Output Encoder(const py::array& input, const std::vector<py::object>& params, int64_t num_heads, float eps,
               const OptionalArray& mask, const OptionalArray& cu_seqlens, bool first_token_only);

}  // namespace squeezebert::python
