#include <torch/csrc/stable/ops.h>

#include <limits>

#include "bindings/layout.h"
#include "torch/arguments.h"

namespace squeezebert::torch_ops {
namespace {

constexpr int64_t kMaxOffset = std::numeric_limits<int32_t>::max();

int64_t RowCount(const Tensor& tensor) {
  int64_t rows = 1;
  for (int64_t d = 0; d + 1 < tensor.dim(); ++d) rows *= tensor.size(d);
  return rows;
}

void CheckTokenCount(const Argument& argument, int64_t tokens) {
  if (tokens > kMaxOffset)
    Fail(argument, "at most " + std::to_string(kMaxOffset) + " tokens (offsets are int32)",
         std::to_string(tokens) + " tokens");
}

std::vector<int32_t> AsOffsets(const Argument& argument, const Tensor& cu_seqlens, int64_t tokens) {
  CheckCpu(argument, cu_seqlens, ScalarType::Int);
  if (cu_seqlens.dim() != 1 || cu_seqlens.numel() == 0) Fail(argument, "shape [sequences + 1]", Describe(cu_seqlens));
  const Tensor contiguous = torch::stable::contiguous(cu_seqlens);
  const int32_t* data = contiguous.const_data_ptr<int32_t>();
  std::vector<int32_t> offsets(data, data + contiguous.numel());
  if (const auto wrong = bindings::CheckOffsets(offsets, tokens)) Fail(argument, wrong->expected, wrong->got);
  return offsets;
}

}  // namespace

Rows AsRows(const Argument& argument, const Tensor& tensor) {
  CheckCpu(argument, tensor, ScalarType::Float);
  if (tensor.dim() == 0) Fail(argument, "at least one dimension, the last one channels", "a scalar");
  const int64_t channels = tensor.size(tensor.dim() - 1);
  if (channels == 0) Fail(argument, "at least one channel", Describe(tensor));
  CheckTokenCount(argument, RowCount(tensor));  // before a copy of expanded rows asks for the memory
  const auto strides = tensor.strides();
  const std::optional<int64_t> stride = bindings::RowStride(Sizes(tensor), {strides.begin(), strides.end()});
  const Tensor owner = stride.has_value() ? tensor : torch::stable::contiguous(tensor);
  return {owner, owner.const_data_ptr<float>(), RowCount(tensor), channels, stride.value_or(channels)};
}

Tensor EmptyRows(const Tensor& like, int64_t channels) {
  std::vector<int64_t> sizes = Sizes(like);
  sizes.back() = channels;
  return torch::stable::new_empty(like, sizes);
}

Sequences AsSequences(const Argument& argument, const Tensor& tensor) {
  if (tensor.dim() != 2 && tensor.dim() != 3)
    Fail(argument, "[sequences, tokens, channels] or [tokens, channels]", Describe(tensor));
  const int64_t count = tensor.dim() == 3 ? tensor.size(0) : 1;
  const int64_t length = tensor.size(tensor.dim() - 2);
  CheckTokenCount(argument, count);
  Rows rows = AsRows(argument, tensor);  // and so no more tokens than offsets can count
  return {std::move(rows), bindings::EqualOffsets(count, length)};
}

Sequences AsSequences(const Argument& argument, const Tensor& tensor, const std::optional<Tensor>& cu_seqlens) {
  if (!cu_seqlens.has_value()) return AsSequences(argument, tensor);
  if (tensor.dim() != 2) Fail(argument, "packed tokens [tokens, channels] beside cu_seqlens", Describe(tensor));
  CheckTokenCount(argument, tensor.size(0));
  std::vector<int32_t> offsets = AsOffsets({argument.op, "cu_seqlens"}, *cu_seqlens, tensor.size(0));
  return {AsRows(argument, tensor), std::move(offsets)};
}

}  // namespace squeezebert::torch_ops
