// pack_encoder_layer, unpack_encoder_layer, unpack_grouped_conv1x1.
#include <torch/csrc/stable/ops.h>

#include <cstring>

#include "torch/layers.h"
#include "torch/operators.h"

namespace squeezebert::torch_ops {
namespace {

Tensor Floats(const Tensor& like, const std::vector<int64_t>& sizes) {
  return torch::stable::new_empty(like, sizes, ScalarType::Float);
}

/// The weight [out_channels, in_channels / groups] of a linear of that shape, float32.
Tensor UnpackWeight(const Argument& argument, const Tensor& owner, const squeezebert_linear& linear,
                    const squeezebert_conv_shape& expected) {
  squeezebert_conv_shape shape{};
  CheckStatus(argument.op, squeezebert_packed_shape(linear.packed, linear.packed_bytes, &shape, nullptr));
  const auto text = [](const squeezebert_conv_shape& s) {
    return Text({s.out_channels, s.in_channels / s.groups}) + ", groups = " + std::to_string(s.groups);
  };
  if (shape.out_channels != expected.out_channels || shape.in_channels != expected.in_channels ||
      shape.groups != expected.groups || shape.kernel_size != 1)
    Fail(argument, "one of shape " + text(expected), "one of shape " + text(shape));
  Tensor weight = Floats(owner, {shape.out_channels, shape.in_channels / shape.groups});
  CheckStatus(argument.op, squeezebert_unpack(linear.packed, linear.packed_bytes, weight.mutable_data_ptr<float>(),
                                              static_cast<size_t>(weight.numel()) * sizeof(float)));
  return weight;
}

/// A copy; zeros of a bias that is not there.
Tensor UnpackVector(const Tensor& owner, const float* values, int64_t size) {
  Tensor vector = Floats(owner, {size});
  const size_t bytes = static_cast<size_t>(size) * sizeof(float);
  if (values) {
    std::memcpy(vector.mutable_data_ptr<float>(), values, bytes);
  } else {
    std::memset(vector.mutable_data_ptr<float>(), 0, bytes);
  }
  return vector;
}

}  // namespace

Tensor PackEncoderLayer(const std::vector<Tensor>& params, const std::vector<int64_t>& groups, double eps,
                        OptionalDtype attention_dtype) {
  const char* op = "pack_encoder_layer";
  if (params.size() != bindings::kTensorsPerLayer) Fail({op, "params"}, "16 tensors", std::to_string(params.size()));
  const int64_t channels = params[0].dim() > 0 ? params[0].size(0) : 0;
  std::optional<squeezebert_format> attention;
  if (attention_dtype.has_value()) attention = FormatOf({op, "attention_dtype"}, *attention_dtype);
  const Layers layers(op, params, groups, eps, channels, attention);
  size_t bytes = 0;
  CheckStatus(op, squeezebert_packed_layer_size(layers.data(), &bytes));
  Tensor packed = torch::stable::new_empty(params[0], {static_cast<int64_t>(bytes)}, ScalarType::Byte);
  CheckStatus(op, squeezebert_pack_layer(layers.data(), packed.mutable_data_ptr(), bytes));
  return packed;
}

std::vector<Tensor> UnpackEncoderLayer(const Tensor& layer, int64_t channels, int64_t intermediate_channels,
                                       const std::vector<int64_t>& groups) {
  const Argument argument{"unpack_encoder_layer", "layer"};
  if (groups.size() != 6)
    Fail({argument.op, "groups"}, "six group counts, [query, key, value, post_attention, intermediate, output]",
         Text(groups));
  const auto [owner, view] = AsPackedLayer(argument, layer);
  std::vector<Tensor> params;
  const auto add_linear = [&, &owner = owner](const squeezebert_linear& linear, int64_t in, int64_t out, int64_t g) {
    params.push_back(UnpackWeight(argument, owner, linear, {out, in, g, 1}));
    params.push_back(UnpackVector(owner, linear.bias, out));
  };
  const auto add_norm = [&, &owner = owner](const squeezebert_layer_norm& norm) {
    params.push_back(UnpackVector(owner, norm.weight, channels));
    params.push_back(UnpackVector(owner, norm.bias, channels));
  };
  for (const int64_t count : groups) {
    if (count < 1) Fail({argument.op, "groups"}, "positive group counts", Text(groups));
  }
  add_linear(view.query, channels, channels, groups[0]);
  add_linear(view.key, channels, channels, groups[1]);
  add_linear(view.value, channels, channels, groups[2]);
  add_linear(view.post_attention, channels, channels, groups[3]);
  add_norm(view.post_attention_layer_norm);
  add_linear(view.intermediate, channels, intermediate_channels, groups[4]);
  add_linear(view.output, intermediate_channels, channels, groups[5]);
  add_norm(view.output_layer_norm);
  return params;
}

Tensor UnpackGroupedConv1x1(const Tensor& weight, int64_t in_channels, int64_t groups) {
  const char* op = "unpack_grouped_conv1x1";
  const Argument argument{op, "weight"};
  if (weight.scalar_type() != ScalarType::Byte) Fail(argument, "a packed weight, dtype torch.uint8", Describe(weight));
  const Linear linear =
      AsLinear({argument, argument, {op, "groups"}}, weight, std::nullopt, groups, in_channels, KernelSize::kOne);
  return UnpackWeight(argument, linear.packed_owner, linear.view, {weight.size(0), in_channels, groups, 1});
}

}  // namespace squeezebert::torch_ops
