// encoder_layer, encoder.
#include <torch/csrc/stable/ops.h>

#include "torch/arguments.h"
#include "torch/context.h"
#include "torch/layers.h"
#include "torch/operators.h"

namespace squeezebert::torch_ops {
namespace {

void CheckFirstTokens(const char* op, const std::vector<int32_t>& offsets) {
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    if (offsets[s] == offsets[s + 1])
      Fail({op, "first_token_only"}, "at least one token in every sequence",
           "sequence " + std::to_string(s) + " without any");
  }
}

Tensor Run(const char* op, const Tensor& input, const std::vector<Tensor>& params, int64_t num_heads,
           const std::vector<int64_t>& groups, double eps, const OptionalTensor& mask, const OptionalTensor& cu_seqlens,
           bool first_token_only) {
  const Sequences sequences = AsSequences({op, "input"}, input, cu_seqlens);
  const Rows& rows = sequences.rows;
  CheckHeads(op, num_heads, rows.channels);
  const Layers layers(op, params, groups, eps, rows.channels);
  const Mask checked_mask = AsSelfMask(op, mask, cu_seqlens, input, sequences.count(), num_heads);
  if (first_token_only) CheckFirstTokens(op, sequences.offsets);
  Tensor output = first_token_only ? torch::stable::new_empty(input, {sequences.count(), rows.channels})
                                   : EmptyRows(input, rows.channels);
  if (rows.rows == 0) return output;
  const squeezebert_encoder_shape shape{.struct_size = sizeof(squeezebert_encoder_shape),
                                        .sequences = sequences.count(),
                                        .cu_seqlens = sequences.offsets.data(),
                                        .heads = num_heads,
                                        .first_token_only = first_token_only};
  CheckStatus(op, squeezebert_encoder(ThreadContext(op), &shape, layers.data(), layers.count(), rows.data, rows.stride,
                                      checked_mask.get(), output.mutable_data_ptr<float>(), rows.channels));
  return output;
}

}  // namespace

Tensor EncoderLayer(const Tensor& input, const std::vector<Tensor>& params, int64_t num_heads,
                    const std::vector<int64_t>& groups, double eps, const OptionalTensor& mask,
                    const OptionalTensor& cu_seqlens) {
  const char* op = "encoder_layer";
  if (params.size() != 1 && params.size() != bindings::kTensorsPerLayer)
    Fail({op, "params"}, "16 tensors, or one packed layer", std::to_string(params.size()));
  return Run(op, input, params, num_heads, groups, eps, mask, cu_seqlens, /*first_token_only=*/false);
}

Tensor Encoder(const Tensor& input, const std::vector<Tensor>& params, int64_t num_heads,
               const std::vector<int64_t>& groups, double eps, const OptionalTensor& mask,
               const OptionalTensor& cu_seqlens, bool first_token_only) {
  return Run("encoder", input, params, num_heads, groups, eps, mask, cu_seqlens, first_token_only);
}

}  // namespace squeezebert::torch_ops
