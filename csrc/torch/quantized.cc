// quantize_weight, pack_quantized, unpack_quantized: a weight as whole numbers and scales, which is its portable form.
#include <torch/csrc/stable/ops.h>

#include "torch/arguments.h"
#include "torch/operators.h"

namespace squeezebert::torch_ops {
namespace {

/// The sizes of one scale for each output channel of each tap of a weight.
std::vector<int64_t> ScaleSizes(std::vector<int64_t> sizes) {
  sizes[1] = 1;
  return sizes;
}

Tensor EmptyScale(const Tensor& like, const std::vector<int64_t>& sizes) {
  return torch::stable::new_empty(like, ScaleSizes(sizes), ScalarType::Float);
}

}  // namespace

std::tuple<Tensor, Tensor> QuantizeWeight(const Tensor& weight) {
  const char* op = "quantize_weight";
  const Argument name{op, "weight"};
  const squeezebert_conv_shape shape = PlainShape(name, name, weight, /*groups=*/1, KernelSize::kAnyOdd, std::nullopt);
  const Tensor plain = torch::stable::contiguous(torch::stable::to(weight, ScalarType::Float));
  Tensor values = torch::stable::new_empty(plain, Sizes(weight), ScalarType::Char);
  Tensor scale = EmptyScale(plain, Sizes(weight));
  CheckStatus(op, squeezebert_quantize(&shape, plain.const_data_ptr<float>(), values.mutable_data_ptr<int8_t>(),
                                       scale.mutable_data_ptr<float>()));
  return {values, scale};
}

Tensor PackQuantized(const Tensor& values, const Tensor& scale, int64_t groups) {
  const char* op = "pack_quantized";
  CheckCpu({op, "values"}, values, ScalarType::Char);
  CheckCpu({op, "scale"}, scale, ScalarType::Float);
  const squeezebert_conv_shape shape =
      ConvShape({op, "values"}, {op, "groups"}, values, groups, KernelSize::kAnyOdd, std::nullopt);
  const std::vector<int64_t> scales = ScaleSizes(Sizes(values));
  if (Sizes(scale) != scales)
    Fail({op, "scale"}, "a scale for each output channel (and tap), shape " + Text(scales), Describe(scale));
  const Tensor numbers = torch::stable::contiguous(values), factors = torch::stable::contiguous(scale);
  Tensor packed = EmptyPacked(op, values, shape, SQUEEZEBERT_INT8);
  CheckStatus(op, squeezebert_pack_quantized(&shape, numbers.const_data_ptr<int8_t>(), factors.const_data_ptr<float>(),
                                             packed.mutable_data_ptr(), static_cast<size_t>(packed.numel())));
  return packed;
}

std::tuple<Tensor, Tensor> UnpackQuantized(const Tensor& weight, int64_t in_channels, int64_t groups,
                                           int64_t kernel_size) {
  const char* op = "unpack_quantized";
  const Argument name{op, "weight"};
  CheckCpu(name, weight, ScalarType::Byte);
  const Linear linear =
      AsLinear({name, name, {op, "groups"}}, weight, std::nullopt, groups, in_channels, KernelSize::kAnyOdd);
  if (linear.format != SQUEEZEBERT_INT8)
    Fail(name, "a weight packed as torch.int8",
         std::string("one packed as torch.") + squeezebert_format_name(linear.format));
  squeezebert_conv_shape shape{};
  CheckStatus(op, squeezebert_packed_shape(linear.view.packed, linear.view.packed_bytes, &shape, nullptr));
  if (shape.kernel_size != kernel_size)
    Fail({op, "kernel_size"}, "the " + std::to_string(shape.kernel_size) + " that weight was packed with",
         std::to_string(kernel_size));
  const std::vector<int64_t> sizes{weight.size(0), in_channels / groups, kernel_size};
  Tensor values = torch::stable::new_empty(weight, sizes, ScalarType::Char);
  Tensor scale = EmptyScale(weight, sizes);
  CheckStatus(op, squeezebert_unpack_quantized(linear.view.packed, linear.view.packed_bytes,
                                               values.mutable_data_ptr<int8_t>(), scale.mutable_data_ptr<float>()));
  return {values, scale};
}

}  // namespace squeezebert::torch_ops
