#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <cstring>

#include "torch/arguments.h"

namespace squeezebert::torch_ops {
namespace {

std::string Text(const squeezebert_conv_shape& shape) {
  return "[" + std::to_string(shape.out_channels) + ", " + std::to_string(shape.in_channels / shape.groups) + ", " +
         std::to_string(shape.kernel_size) + "], groups = " + std::to_string(shape.groups);
}

template <class Body>
void ForEachFormat(const Body& body) {
  for (int i = 0; const char* name = squeezebert_format_name(static_cast<squeezebert_format>(i)); ++i) {
    body(static_cast<squeezebert_format>(i), "torch." + std::string(name));
  }
}

/// The format whose name is the dtype's.
std::optional<squeezebert_format> FormatNamed(ScalarType dtype) {
  std::optional<squeezebert_format> found;
  ForEachFormat([&](squeezebert_format format, const std::string& name) {
    if (name == DtypeName(dtype)) found = format;
  });
  return found;
}

// Whole numbers are no weight without their scales.
bool IsPlain(squeezebert_format format) { return format != SQUEEZEBERT_INT8; }

std::optional<squeezebert_format> PlainFormat(ScalarType dtype) {
  const std::optional<squeezebert_format> format = FormatNamed(dtype);
  return format.has_value() && IsPlain(*format) ? format : std::nullopt;
}

/// "torch.float32, torch.float16 or torch.bfloat16"
std::string FormatNames(bool plain_only) {
  std::string names, last;
  ForEachFormat([&](squeezebert_format format, const std::string& name) {
    if (plain_only && !IsPlain(format)) return;
    if (!last.empty()) names += (names.empty() ? "" : ", ") + last;
    last = name;
  });
  return names.empty() ? last : names + " or " + last;
}

}  // namespace

squeezebert_conv_shape ConvShape(const Argument& weight_name, const Argument& groups_name, const Tensor& weight,
                                 int64_t groups, KernelSize kernel_size, std::optional<int64_t> in_channels) {
  const int64_t rank = weight.dim();
  const int64_t size = rank == 3 ? weight.size(2) : 1;
  if ((rank != 2 && rank != 3) || weight.numel() == 0 ||
      (kernel_size == KernelSize::kOne ? size != 1 : size % 2 == 0)) {
    Fail(weight_name,
         kernel_size == KernelSize::kOne
             ? "[out_channels, in_channels / groups] or [out_channels, in_channels / groups, 1]"
             : "[out_channels, in_channels / groups, kernel_size] with an odd kernel_size",
         Describe(weight));
  }
  const int64_t out_channels = weight.size(0);
  if (groups < 1 || out_channels % groups != 0 || in_channels.value_or(0) % groups != 0) {
    const std::string input = in_channels.has_value() ? std::to_string(*in_channels) + " input and " : "";
    Fail(groups_name, "a positive divisor of " + input + std::to_string(out_channels) + " output channels",
         std::to_string(groups));
  }
  if (in_channels.has_value() && weight.size(1) != *in_channels / groups)
    Fail(weight_name,
         std::to_string(*in_channels / groups) + " input channels per group (" + std::to_string(*in_channels) +
             " channels, groups = " + std::to_string(groups) + ")",
         Describe(weight));
  return {out_channels, weight.size(1) * groups, groups, size};
}

squeezebert_conv_shape PlainShape(const Argument& weight_name, const Argument& groups_name, const Tensor& weight,
                                  int64_t groups, KernelSize kernel_size, std::optional<int64_t> in_channels) {
  CheckCpu(weight_name, weight, weight.scalar_type());
  if (!PlainFormat(weight.scalar_type()).has_value())
    Fail(weight_name, "dtype " + FormatNames(/*plain_only=*/true), Describe(weight));
  return ConvShape(weight_name, groups_name, weight, groups, kernel_size, in_channels);
}

Tensor EmptyPacked(const char* op, const Tensor& like, const squeezebert_conv_shape& shape, squeezebert_format format) {
  size_t bytes = 0;
  CheckStatus(op, squeezebert_packed_size(&shape, format, &bytes));
  const auto out_channels = static_cast<size_t>(shape.out_channels);
  const size_t bytes_per_channel = (bytes + out_channels - 1) / out_channels;
  const size_t total = bytes_per_channel * out_channels;
  Tensor packed =
      torch::stable::new_empty(like, {shape.out_channels, static_cast<int64_t>(bytes_per_channel)}, ScalarType::Byte);
  auto* data = packed.mutable_data_ptr<uint8_t>();
  std::memset(data + bytes, 0, total - bytes);
  return packed;
}

namespace {

Tensor PackContiguous(const char* op, const Tensor& weight, const squeezebert_conv_shape& shape,
                      squeezebert_format format) {
  Tensor packed = EmptyPacked(op, weight, shape, format);
  const Tensor plain = torch::stable::contiguous(torch::stable::to(weight, ScalarType::Float));
  CheckStatus(op, squeezebert_pack(&shape, format, plain.const_data_ptr<float>(), packed.mutable_data_ptr(),
                                   static_cast<size_t>(packed.numel())));
  return packed;
}

/// A packed weight, contiguous, and its format, after checking that it is the layer that the call asks for.
Tensor CheckedPacked(const LinearNames& names, const Tensor& weight, int64_t groups, int64_t in_channels,
                     KernelSize kernel_size, squeezebert_format* format) {
  const Argument& name = names.weight;
  if (weight.dim() != 2 || weight.numel() == 0)
    Fail(name, "a packed weight [out_channels, bytes_per_channel]", Describe(weight));
  const Tensor packed = AlignedBytes(weight);
  squeezebert_conv_shape shape{};
  const squeezebert_status status =
      squeezebert_packed_shape(packed.const_data_ptr(), static_cast<size_t>(packed.numel()), &shape, format);
  if (status == SQUEEZEBERT_BAD_PACK)
    Fail(name, "a weight packed by pack_grouped_conv1x1 or pack_grouped_conv1d for the ISA in use",
         Describe(weight) + ": " + squeezebert_last_error());
  CheckStatus(name.op, status);
  if (shape.out_channels != weight.size(0))
    Fail(name, "one row for each of the " + std::to_string(shape.out_channels) + " output channels it was packed from",
         Describe(weight));
  if (shape.groups != groups)
    Fail(names.groups, "the " + std::to_string(shape.groups) + " groups that " + name.name + " was packed with",
         std::to_string(groups));
  if (shape.in_channels != in_channels)
    Fail(name, "a packed weight for " + std::to_string(in_channels) + " input channels", "one of shape " + Text(shape));
  if (kernel_size == KernelSize::kOne && shape.kernel_size != 1)
    Fail(name, "a packed weight of kernel size 1", "one of shape " + Text(shape));
  return packed;
}

}  // namespace

Tensor AlignedBytes(const Tensor& packed) {
  const Tensor bytes = packed.is_contiguous() ? packed : torch::stable::contiguous(packed);
  const bool aligned = reinterpret_cast<uintptr_t>(bytes.const_data_ptr()) % alignof(float) == 0;
  return aligned ? bytes : torch::stable::clone(bytes);
}

squeezebert_format FormatOf(const Argument& argument, ScalarType dtype) {
  const std::optional<squeezebert_format> format = FormatNamed(dtype);
  if (!format.has_value()) Fail(argument, FormatNames(/*plain_only=*/false), DtypeName(dtype));
  return *format;
}

Tensor Pack(const char* op, const Tensor& weight, int64_t groups, KernelSize kernel_size,
            std::optional<ScalarType> dtype) {
  const squeezebert_conv_shape shape =
      PlainShape({op, "weight"}, {op, "groups"}, weight, groups, kernel_size, /*in_channels=*/std::nullopt);
  return PackContiguous(op, weight, shape, FormatOf({op, "dtype"}, dtype.value_or(weight.scalar_type())));
}

Linear AsLinear(const LinearNames& names, const Tensor& weight, const std::optional<Tensor>& bias, int64_t groups,
                int64_t in_channels, KernelSize kernel_size) {
  Linear linear;
  if (weight.is_cpu() && weight.scalar_type() == ScalarType::Byte) {
    linear.packed_owner = CheckedPacked(names, weight, groups, in_channels, kernel_size, &linear.format);
  } else {
    const squeezebert_conv_shape shape =
        PlainShape(names.weight, names.groups, weight, groups, kernel_size, in_channels);
    linear.format = *PlainFormat(weight.scalar_type());
    linear.packed_owner = PackContiguous(names.weight.op, weight, shape, linear.format);
  }
  linear.out_channels = weight.size(0);
  linear.view = {linear.packed_owner.const_data_ptr(), static_cast<size_t>(linear.packed_owner.numel()), nullptr};
  if (bias.has_value()) {
    linear.bias_owner = AsVector(names.bias, *bias, linear.out_channels);
    linear.view.bias = linear.bias_owner.const_data_ptr<float>();
  }
  return linear;
}

Linear AsTransposedLinear(const LinearNames& names, const Tensor& weight, int64_t groups, int64_t in_channels) {
  const squeezebert_conv_shape shape =
      PlainShape(names.weight, names.groups, weight, groups, KernelSize::kOne, in_channels);
  const squeezebert_conv_shape transposed{shape.in_channels, shape.out_channels, groups, 1};
  Linear linear;
  linear.format = SQUEEZEBERT_FLOAT32;
  linear.packed_owner = EmptyPacked(names.weight.op, weight, transposed, linear.format);
  linear.out_channels = shape.out_channels;
  linear.view = {linear.packed_owner.const_data_ptr(), static_cast<size_t>(linear.packed_owner.numel()), nullptr};
  const Tensor plain = torch::stable::contiguous(weight);
  CheckStatus(names.weight.op,
              squeezebert_pack_transposed(&shape, plain.const_data_ptr<float>(),
                                          linear.packed_owner.mutable_data_ptr<uint8_t>(), linear.view.packed_bytes));
  return linear;
}

LayerNorm AsLayerNorm(const Argument& weight_name, const Tensor& weight, const Argument& bias_name, const Tensor& bias,
                      float epsilon, int64_t channels) {
  LayerNorm layer_norm{AsVector(weight_name, weight, channels), AsVector(bias_name, bias, channels), {}};
  layer_norm.view = {layer_norm.weight_owner.const_data_ptr<float>(), layer_norm.bias_owner.const_data_ptr<float>(),
                     epsilon};
  return layer_norm;
}

}  // namespace squeezebert::torch_ops
