// pack_encoder_layer, repack_encoder_layer, unpack_encoder_layer, unpack_grouped_conv1x1.
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

/// A plain weight of that shape, as contiguous float32.
Tensor AsPlainWeight(const Argument& argument, const Tensor& weight, const squeezebert_conv_shape& shape) {
  const ScalarType dtype = weight.scalar_type();
  CheckCpu(argument, weight, dtype);
  const std::vector<int64_t> expected{shape.out_channels, shape.in_channels / shape.groups};
  std::vector<int64_t> sizes = Sizes(weight);
  if (sizes.size() == 3 && sizes[2] == 1) sizes.pop_back();
  const bool plain = dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16;
  if (sizes != expected || !plain) Fail(argument, "a plain weight of shape " + Text(expected), Describe(weight));
  return torch::stable::contiguous(torch::stable::to(weight, ScalarType::Float));
}

void CheckSixteen(const char* op, const std::vector<Tensor>& params) {
  if (params.size() != bindings::kTensorsPerLayer) Fail({op, "params"}, "16 tensors", std::to_string(params.size()));
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
  CheckSixteen(op, params);
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

void RepackEncoderLayer(const Tensor& packed, const std::vector<Tensor>& params) {
  const char* op = "repack_encoder_layer";
  CheckSixteen(op, params);
  const auto [owner, view] = AsPackedLayer({op, "packed"}, packed);
  if (owner.const_data_ptr() != packed.const_data_ptr())
    Fail({op, "packed"}, "contiguous bytes, aligned as floats are", "others");
  auto* const base = static_cast<char*>(packed.mutable_data_ptr());
  const char* const begin = static_cast<const char*>(packed.const_data_ptr());
  const auto place = [&](const void* part) { return base + (static_cast<const char*>(part) - begin); };
  const auto write_vector = [&](int64_t slot, const float* part, int64_t size) {
    const Tensor values = AsVector(ParamOf(op, slot), params[slot], size);
    if (!part) Fail(ParamOf(op, slot), "none in a layer that was packed without", Describe(values));
    std::memcpy(place(part), values.const_data_ptr<float>(), static_cast<size_t>(size) * sizeof(float));
  };
  const auto write_linear = [&](int64_t slot, const squeezebert_linear& linear) {
    squeezebert_conv_shape shape{};
    squeezebert_format format{};
    CheckStatus(op, squeezebert_packed_shape(linear.packed, linear.packed_bytes, &shape, &format));
    const Tensor weight = AsPlainWeight(ParamOf(op, slot), params[slot], shape);
    CheckStatus(op, squeezebert_pack(&shape, format, weight.const_data_ptr<float>(), place(linear.packed),
                                     linear.packed_bytes));
    write_vector(slot + 1, linear.bias, shape.out_channels);
  };
  const int64_t channels = ChannelsOf(op, view);
  const auto write_norm = [&](int64_t slot, const squeezebert_layer_norm& norm) {
    write_vector(slot, norm.weight, channels);
    write_vector(slot + 1, norm.bias, channels);
  };
  write_linear(0, view.query);
  write_linear(2, view.key);
  write_linear(4, view.value);
  write_linear(6, view.post_attention);
  write_norm(8, view.post_attention_layer_norm);
  write_linear(10, view.intermediate);
  write_linear(12, view.output);
  write_norm(14, view.output_layer_norm);
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
