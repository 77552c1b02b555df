#include "torch/check.h"

#include <torch/csrc/stable/ops.h>

#include <stdexcept>

#include "bindings/layout.h"

namespace squeezebert::torch_ops {
namespace {

std::string Text(const Argument& argument) {
  if (argument.index < 0) return argument.name;
  return "params[" + std::to_string(argument.index) + "] (layer " +
         std::to_string(argument.index / bindings::kTensorsPerLayer) + ", " + argument.name + ")";
}

}  // namespace

std::string DtypeName(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::Double:
      return "torch.float64";
    case ScalarType::Half:
      return "torch.float16";
    case ScalarType::BFloat16:
      return "torch.bfloat16";
    case ScalarType::Bool:
      return "torch.bool";
    case ScalarType::Byte:
      return "torch.uint8";
    case ScalarType::Char:
      return "torch.int8";
    case ScalarType::Int:
      return "torch.int32";
    case ScalarType::Long:
      return "torch.int64";
    default:
      return torch::headeronly::toString(dtype);
  }
}

void Fail(const Argument& argument, const std::string& expected, const std::string& got) {
  throw std::invalid_argument("squeezebert::" + std::string(argument.op) + ": " + Text(argument) + ": expected " +
                              expected + ", got " + got);
}

std::string Text(const std::vector<int64_t>& sizes) {
  std::string text = "[";
  for (size_t i = 0; i < sizes.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
  return text + "]";
}

std::string Describe(const Tensor& tensor) {
  return "a " + DtypeName(tensor.scalar_type()) + " tensor of shape " + Text(Sizes(tensor));
}

std::vector<int64_t> Sizes(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

void CheckCpu(const Argument& argument, const Tensor& tensor, ScalarType dtype) {
  if (!tensor.is_cpu()) Fail(argument, "a CPU tensor", "one on another device");
  if (tensor.scalar_type() != dtype) Fail(argument, "dtype " + DtypeName(dtype), Describe(tensor));
}

Tensor AsVector(const Argument& argument, const Tensor& tensor, int64_t size) {
  CheckCpu(argument, tensor, ScalarType::Float);
  if (tensor.dim() != 1 || tensor.size(0) != size) Fail(argument, "shape " + Text({size}), Describe(tensor));
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

float AsEpsilon(const char* op, double eps) {
  if (!(eps >= 0)) Fail({op, "eps"}, "a number that is not negative", std::to_string(eps));
  return static_cast<float>(eps);
}

void CheckHeads(const char* op, int64_t num_heads, int64_t channels) {
  if (num_heads < 1 || channels % num_heads != 0)
    Fail({op, "num_heads"}, "a positive divisor of " + std::to_string(channels) + " channels",
         std::to_string(num_heads));
}

void CheckStatus(const char* op, squeezebert_status status) {
  if (status == SQUEEZEBERT_OK) return;
  const std::string text = "squeezebert::" + std::string(op) + ": " + squeezebert_last_error();
  if (status == SQUEEZEBERT_INVALID_ARGUMENT || status == SQUEEZEBERT_BAD_PACK) throw std::invalid_argument(text);
  throw std::runtime_error(text);
}

}  // namespace squeezebert::torch_ops
