// embedding_layer_norm.
#include <torch/csrc/stable/ops.h>

#include <limits>
#include <stdexcept>
#include <string>

#include "torch/arguments.h"
#include "torch/context.h"
#include "torch/operators.h"

namespace squeezebert::torch_ops {
namespace {

constexpr const char* kOp = "embedding_layer_norm";

/// `ids` (int64 or int32, of a shape that broadcasts to `like`'s) as one contiguous int64 per element of `like`.
Tensor AsIds(const char* name, const Tensor& ids, const Tensor& like) {
  const Argument argument{kOp, name};
  const bool is_integer =
      ids.is_cpu() && (ids.scalar_type() == ScalarType::Long || ids.scalar_type() == ScalarType::Int);
  if (!is_integer) Fail(argument, "a torch.int64 or torch.int32 CPU tensor", Describe(ids));
  const int64_t rank = like.dim(), missing = rank - ids.dim();
  bool fits = missing >= 0;
  for (int64_t d = 0; fits && d < ids.dim(); ++d) fits = ids.size(d) == 1 || ids.size(d) == like.size(d + missing);
  if (!fits) Fail(argument, "a shape that broadcasts to that of input_ids, " + Text(Sizes(like)), Describe(ids));

  const Tensor wide = torch::stable::to(ids, ScalarType::Long);
  if (Sizes(wide) == Sizes(like)) return torch::stable::contiguous(wide);
  Tensor broadcast = torch::stable::new_empty(like, Sizes(like), ScalarType::Long);
  return torch::stable::copy_(broadcast, wide);
}

/// 0 .. S-1 along the last dimension of `input_ids`.
Tensor CountPositions(const Tensor& input_ids, int64_t positions) {
  const int64_t tokens = input_ids.size(input_ids.dim() - 1);
  if (tokens > positions)
    Fail({kOp, "input_ids"}, "at most " + std::to_string(positions) + " tokens (the rows of position_embeddings)",
         Describe(input_ids));
  Tensor ids = torch::stable::new_empty(input_ids, Sizes(input_ids), ScalarType::Long);
  auto* data = ids.mutable_data_ptr<int64_t>();
  for (int64_t i = 0, count = ids.numel(); i < count; ++i) data[i] = i % tokens;
  return ids;
}

/// A table [rows, channels] of at least one row, contiguous.
Tensor AsTable(const char* name, const Tensor& table, int64_t channels) {
  const Argument argument{kOp, name};
  CheckCpu(argument, table, ScalarType::Float);
  if (table.dim() != 2 || table.size(1) != channels)
    Fail(argument, "[rows, " + std::to_string(channels) + "]", Describe(table));
  if (table.size(0) == 0) Fail(argument, "at least one row", Describe(table));
  return torch::stable::contiguous(table);
}

}  // namespace

Tensor EmbeddingLayerNorm(const Tensor& input_ids, const OptionalTensor& token_type_ids,
                          const OptionalTensor& position_ids, const Tensor& word_embeddings,
                          const Tensor& position_embeddings, const Tensor& token_type_embeddings,
                          const Tensor& ln_weight, const Tensor& ln_bias, double eps) {
  if (input_ids.dim() == 0) Fail({kOp, "input_ids"}, "at least one dimension, the last one tokens", "a scalar");
  constexpr int64_t kMostTokens = std::numeric_limits<int32_t>::max();
  if (input_ids.numel() > kMostTokens)
    Fail({kOp, "input_ids"}, "at most " + std::to_string(kMostTokens) + " tokens", Describe(input_ids));
  if (word_embeddings.dim() != 2 || word_embeddings.size(1) == 0)
    Fail({kOp, "word_embeddings"}, "[vocabulary, channels]", Describe(word_embeddings));
  const int64_t channels = word_embeddings.size(1);
  const Tensor words = AsTable("word_embeddings", word_embeddings, channels);
  const Tensor positions = AsTable("position_embeddings", position_embeddings, channels);
  const Tensor types = AsTable("token_type_embeddings", token_type_embeddings, channels);
  const LayerNorm layer_norm =
      AsLayerNorm({kOp, "ln_weight"}, ln_weight, {kOp, "ln_bias"}, ln_bias, AsEpsilon(kOp, eps), channels);
  const Tensor ids = AsIds("input_ids", input_ids, input_ids);
  const Tensor position_of = position_ids.has_value() ? AsIds("position_ids", *position_ids, input_ids)
                                                      : CountPositions(input_ids, positions.size(0));
  OptionalTensor type_of;
  if (token_type_ids.has_value()) type_of = AsIds("token_type_ids", *token_type_ids, input_ids);

  std::vector<int64_t> sizes = Sizes(input_ids);
  sizes.push_back(channels);
  Tensor output = torch::stable::new_empty(words, sizes);
  if (ids.numel() == 0) return output;
  const squeezebert_embeddings embeddings{sizeof(squeezebert_embeddings),
                                          words.const_data_ptr<float>(),
                                          words.size(0),
                                          positions.const_data_ptr<float>(),
                                          positions.size(0),
                                          types.const_data_ptr<float>(),
                                          types.size(0),
                                          channels,
                                          layer_norm.view};
  const squeezebert_status status = squeezebert_embedding_layer_norm(
      ThreadContext(kOp), ids.numel(), ids.const_data_ptr<int64_t>(),
      type_of.has_value() ? type_of->const_data_ptr<int64_t>() : nullptr, position_of.const_data_ptr<int64_t>(),
      &embeddings, output.mutable_data_ptr<float>(), channels);
  // Everything else was checked above, so an invalid argument is an id outside its table.
  if (status == SQUEEZEBERT_INVALID_ARGUMENT)
    throw std::out_of_range("squeezebert::" + std::string(kOp) + ": " + squeezebert_last_error());
  CheckStatus(kOp, status);
  return output;
}

}  // namespace squeezebert::torch_ops
