// encoder_layer, encoder.
#include <torch/csrc/stable/ops.h>

#include "bindings/layout.h"
#include "torch/arguments.h"
#include "torch/context.h"
#include "torch/operators.h"

namespace squeezebert::torch_ops {
namespace {

using bindings::kTensorsPerLayer;

// The 16 tensors of a layer, in Hugging Face's order.
constexpr const char* kParamNames[kTensorsPerLayer] = {"query.weight",
                                                       "query.bias",
                                                       "key.weight",
                                                       "key.bias",
                                                       "value.weight",
                                                       "value.bias",
                                                       "post_attention.weight",
                                                       "post_attention.bias",
                                                       "post_attention layernorm.weight",
                                                       "post_attention layernorm.bias",
                                                       "intermediate.weight",
                                                       "intermediate.bias",
                                                       "output.weight",
                                                       "output.bias",
                                                       "output layernorm.weight",
                                                       "output layernorm.bias"};
constexpr const char* kGroupNames[6] = {"groups[0]", "groups[1]", "groups[2]", "groups[3]", "groups[4]", "groups[5]"};

/// The checked tensors of all layers, and the C API's view of them.
class Layers {
 public:
  Layers(const char* op, const std::vector<Tensor>& params, const std::vector<int64_t>& groups, float epsilon,
         int64_t channels)
      : op_(op), params_(params), groups_(groups), epsilon_(epsilon) {
    const int64_t count = static_cast<int64_t>(params.size()) / kTensorsPerLayer;
    views_.reserve(count);
    linears_.reserve(count * 6);
    layer_norms_.reserve(count * 2);
    for (int64_t layer = 0; layer < count; ++layer) {
      const int64_t first = layer * kTensorsPerLayer;
      const Linear& query = AddLinear(first, 0, 0, channels, channels);
      const Linear& key = AddLinear(first, 2, 1, channels, channels);
      const Linear& value = AddLinear(first, 4, 2, channels, channels);
      const Linear& post_attention = AddLinear(first, 6, 3, channels, channels);
      const LayerNorm& post_attention_norm = AddLayerNorm(first, 8, channels);
      const Linear& intermediate = AddLinear(first, 10, 4, channels, /*out_channels=*/std::nullopt);
      const Linear& output = AddLinear(first, 12, 5, intermediate.out_channels, channels);
      const LayerNorm& output_norm = AddLayerNorm(first, 14, channels);
      views_.push_back({.struct_size = sizeof(squeezebert_layer),
                        .query = query.view,
                        .key = key.view,
                        .value = value.view,
                        .post_attention = post_attention.view,
                        .post_attention_layer_norm = post_attention_norm.view,
                        .intermediate = intermediate.view,
                        .output = output.view,
                        .output_layer_norm = output_norm.view,
                        .key_format = query.format,
                        .value_format = query.format});
    }
  }

  const squeezebert_layer* data() const { return views_.data(); }
  int64_t count() const { return static_cast<int64_t>(views_.size()); }

 private:
  Argument Name(int64_t first, int64_t slot) const { return {op_, kParamNames[slot], first + slot}; }

  const Linear& AddLinear(int64_t first, int64_t slot, int64_t group, int64_t in_channels,
                          std::optional<int64_t> out_channels) {
    const LinearNames names{Name(first, slot), Name(first, slot + 1), {op_, kGroupNames[group]}};
    linears_.push_back(AsLinear(names, params_[first + slot], params_[first + slot + 1], groups_[group], in_channels,
                                KernelSize::kOne));
    if (out_channels.has_value() && linears_.back().out_channels != *out_channels)
      Fail(names.weight, std::to_string(*out_channels) + " output channels, as many as input has",
           std::to_string(linears_.back().out_channels));
    return linears_.back();
  }

  const LayerNorm& AddLayerNorm(int64_t first, int64_t slot, int64_t channels) {
    layer_norms_.push_back(AsLayerNorm(Name(first, slot), params_[first + slot], Name(first, slot + 1),
                                       params_[first + slot + 1], epsilon_, channels));
    return layer_norms_.back();
  }

  const char* op_;
  const std::vector<Tensor>& params_;
  const std::vector<int64_t>& groups_;
  float epsilon_;
  std::vector<Linear> linears_;
  std::vector<LayerNorm> layer_norms_;
  std::vector<squeezebert_layer> views_;
};

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
  if (groups.size() != 6)
    Fail({op, "groups"}, "six group counts, [query, key, value, post_attention, intermediate, output]", Text(groups));
  CheckHeads(op, num_heads, rows.channels);
  const Layers layers(op, params, groups, AsEpsilon(op, eps), rows.channels);
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
  if (params.size() != kTensorsPerLayer) Fail({op, "params"}, "16 tensors", std::to_string(params.size()));
  return Run(op, input, params, num_heads, groups, eps, mask, cu_seqlens, /*first_token_only=*/false);
}

Tensor Encoder(const Tensor& input, const std::vector<Tensor>& params, int64_t num_heads,
               const std::vector<int64_t>& groups, double eps, const OptionalTensor& mask,
               const OptionalTensor& cu_seqlens, bool first_token_only) {
  const char* op = "encoder";
  if (params.empty() || params.size() % kTensorsPerLayer != 0)
    Fail({op, "params"}, "16 tensors for each of one or more layers", std::to_string(params.size()));
  return Run(op, input, params, num_heads, groups, eps, mask, cu_seqlens, first_token_only);
}

}  // namespace squeezebert::torch_ops
