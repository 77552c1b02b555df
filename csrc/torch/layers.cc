#include "torch/layers.h"

#include <torch/csrc/stable/ops.h>

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

bool IsPackedLayer(const Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == ScalarType::Byte && tensor.dim() == 1;
}

}  // namespace

Argument ParamOf(const char* op, int64_t slot) { return {op, kParamNames[slot], slot}; }

PackedLayer AsPackedLayer(const Argument& argument, const Tensor& tensor) {
  if (!IsPackedLayer(tensor)) Fail(argument, "a packed layer [bytes]", Describe(tensor));
  PackedLayer layer{AlignedBytes(tensor), SQUEEZEBERT_LAYER_INIT};
  const squeezebert_status status =
      squeezebert_read_layer(layer.owner.const_data_ptr(), static_cast<size_t>(layer.owner.numel()), &layer.view);
  if (status == SQUEEZEBERT_BAD_PACK)
    Fail(argument, "a layer packed by pack_encoder_layer for the ISA in use",
         Describe(tensor) + ": " + squeezebert_last_error());
  CheckStatus(argument.op, status);
  return layer;
}

int64_t ChannelsOf(const char* op, const squeezebert_layer& layer) {
  squeezebert_conv_shape shape{};
  CheckStatus(op, squeezebert_packed_shape(layer.query.packed, layer.query.packed_bytes, &shape, nullptr));
  return shape.in_channels;
}

Layers::Layers(const char* op, const std::vector<Tensor>& params, const std::vector<int64_t>& groups, double eps,
               int64_t channels, std::optional<squeezebert_format> attention, LayerUse use)
    : op_(op), params_(params), groups_(groups), channels_(channels), use_(use) {
  const float epsilon = AsEpsilon(op, eps);
  const auto size = static_cast<int64_t>(params.size());
  if (use == LayerUse::kInference && size > 0 && IsPackedLayer(params[0])) {
    if (!groups.empty()) Fail({op, "groups"}, "[] beside packed layers, which have their own", Text(groups));
    packed_.reserve(size);
    views_.reserve(size);
    for (int64_t index = 0; index < size; ++index) AddPacked(index);
    return;
  }
  if (size == 0 || size % kTensorsPerLayer != 0)
    Fail({op, "params"}, "16 tensors for each of one or more layers, or one packed layer each", std::to_string(size));
  if (groups.size() != 6)
    Fail({op, "groups"}, "six group counts, [query, key, value, post_attention, intermediate, output]", Text(groups));
  const int64_t count = size / kTensorsPerLayer;
  views_.reserve(count);
  linears_.reserve(count * 6);
  layer_norms_.reserve(count * 2);
  for (int64_t layer = 0; layer < count; ++layer) AddPlain(layer * kTensorsPerLayer, epsilon, attention);
}

void Layers::AddPacked(int64_t index) {
  const std::string name = "params[" + std::to_string(index) + "]";
  const Argument argument{op_, name.c_str()};
  PackedLayer layer = AsPackedLayer(argument, params_[index]);
  const int64_t channels = ChannelsOf(op_, layer.view);
  if (channels != channels_)
    Fail(argument, "a layer of " + std::to_string(channels_) + " channels, as many as input has",
         "one of " + std::to_string(channels));
  packed_.push_back(std::move(layer.owner));
  views_.push_back(layer.view);
}

void Layers::AddPlain(int64_t first, float epsilon, std::optional<squeezebert_format> attention) {
  const Linear& query = AddLinear(first, 0, 0, channels_, channels_);
  const Linear& key = AddLinear(first, 2, 1, channels_, channels_);
  const Linear& value = AddLinear(first, 4, 2, channels_, channels_);
  const Linear& post_attention = AddLinear(first, 6, 3, channels_, channels_);
  const LayerNorm& post_attention_norm = AddLayerNorm(first, 8, epsilon);
  const Linear& intermediate = AddLinear(first, 10, 4, channels_, /*out_channels=*/std::nullopt);
  const Linear& output = AddLinear(first, 12, 5, intermediate.out_channels, channels_);
  const LayerNorm& output_norm = AddLayerNorm(first, 14, epsilon);
  views_.push_back({.struct_size = sizeof(squeezebert_layer),
                    .query = query.view,
                    .key = key.view,
                    .value = value.view,
                    .post_attention = post_attention.view,
                    .post_attention_layer_norm = post_attention_norm.view,
                    .intermediate = intermediate.view,
                    .output = output.view,
                    .output_layer_norm = output_norm.view,
                    .key_format = attention.value_or(query.format),
                    .value_format = attention.value_or(query.format)});
}

const Linear& Layers::AddLinear(int64_t first, int64_t slot, int64_t group, int64_t in_channels,
                                std::optional<int64_t> out_channels) {
  const LinearNames names{{op_, kParamNames[slot], first + slot},
                          {op_, kParamNames[slot + 1], first + slot + 1},
                          {op_, kGroupNames[group]}};
  const Tensor& weight = params_[first + slot];
  if (use_ != LayerUse::kInference) CheckCpu(names.weight, weight, ScalarType::Float);
  linears_.push_back(use_ == LayerUse::kBackward ? AsTransposedLinear(names, weight, groups_[group], in_channels)
                                                 : AsLinear(names, weight, params_[first + slot + 1], groups_[group],
                                                            in_channels, KernelSize::kOne));
  if (out_channels.has_value() && linears_.back().out_channels != *out_channels)
    Fail(names.weight, std::to_string(*out_channels) + " output channels, as many as input has",
         std::to_string(linears_.back().out_channels));
  return linears_.back();
}

const LayerNorm& Layers::AddLayerNorm(int64_t first, int64_t slot, float epsilon) {
  const Argument weight{op_, kParamNames[slot], first + slot}, bias{op_, kParamNames[slot + 1], first + slot + 1};
  layer_norms_.push_back(
      AsLayerNorm(weight, params_[first + slot], bias, params_[first + slot + 1], epsilon, channels_));
  return layer_norms_.back();
}

}  // namespace squeezebert::torch_ops
