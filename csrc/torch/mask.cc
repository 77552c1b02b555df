#include <torch/csrc/stable/ops.h>

#include <array>
#include <limits>

#include "torch/arguments.h"

namespace squeezebert::torch_ops {
namespace {

/// Sizes and strides of a mask as if it had all four dimensions [sequences, heads, queries, keys].
struct MaskDims {
  std::array<int64_t, 4> sizes{1, 1, 1, 1};
  std::array<int64_t, 4> strides{0, 0, 0, 0};  // 0 where one element serves the whole dimension
};

MaskDims Dims(const Tensor& mask) {
  MaskDims dims;
  const int64_t rank = mask.dim();
  for (int64_t d = 0; d < rank; ++d) {
    const int64_t to = d + 4 - rank;
    dims.sizes[to] = mask.size(d);
    dims.strides[to] = mask.size(d) == 1 ? 0 : mask.stride(d);
  }
  return dims;
}

/// A contiguous additive copy with all `keys` spelled out; the other dimensions stay as small as they came, expanded
/// ones as they were before.
template <class T, class Additive>
Tensor CopyMask(const Tensor& mask, const MaskDims& dims, int64_t keys, Additive additive) {
  const auto size = [&](int d) { return dims.strides[d] == 0 && dims.sizes[d] > 0 ? 1 : dims.sizes[d]; };
  const int64_t sequences = size(0), heads = size(1), queries = size(2);
  Tensor copy = torch::stable::new_empty(mask, {sequences, heads, queries, keys}, ScalarType::Float);
  auto* to = copy.mutable_data_ptr<float>();
  const T* from = mask.const_data_ptr<T>();
  for (int64_t s = 0; s < sequences; ++s)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t q = 0; q < queries; ++q) {
        const T* row = from + s * dims.strides[0] + h * dims.strides[1] + q * dims.strides[2];
        for (int64_t k = 0; k < keys; ++k) *to++ = additive(row[k * dims.strides[3]]);
      }
  return copy;
}

}  // namespace

Mask AsMask(const char* op, const std::optional<Tensor>& mask, int64_t sequences, int64_t heads, int64_t queries,
            int64_t keys) {
  if (!mask.has_value()) return {};
  const Argument name{op, "mask"};
  const bool is_bool = mask->is_cpu() && mask->scalar_type() == ScalarType::Bool;
  if (!is_bool && !(mask->is_cpu() && mask->scalar_type() == ScalarType::Float))
    Fail(name, "a boolean or torch.float32 CPU tensor", Describe(*mask));
  const std::array<int64_t, 4> wanted{sequences, heads, queries, keys};
  const auto fail = [&] {
    Fail(name, "a shape that broadcasts to " + Text({sequences, heads, queries, keys}), Describe(*mask));
  };
  if (mask->dim() > 4) fail();
  MaskDims dims = Dims(*mask);
  for (int d = 0; d < 4; ++d)
    if (dims.sizes[d] != 1 && dims.sizes[d] != wanted[d]) fail();

  // The C API takes rows that are the same or apart; a sliding window's, say, are neither.
  bool usable = keys <= 1 || dims.strides[3] == 1;
  for (int d = 0; d < 3; ++d) usable = usable && (dims.strides[d] == 0 || dims.strides[d] >= keys);

  Mask result;
  if (is_bool) {
    result.owner = CopyMask<bool>(*mask, dims, keys,
                                  [](bool attend) { return attend ? 0.0F : std::numeric_limits<float>::lowest(); });
  } else if (!usable) {
    result.owner = CopyMask<float>(*mask, dims, keys, [](float value) { return value; });
  } else {
    result.owner = mask;
  }
  dims = Dims(*result.owner);
  result.view = {sizeof(squeezebert_mask), result.owner->const_data_ptr<float>(), dims.strides[0], dims.strides[1],
                 dims.strides[2]};
  return result;
}

Mask AsSelfMask(const char* op, const std::optional<Tensor>& mask, const std::optional<Tensor>& cu_seqlens,
                const Tensor& input, int64_t sequences, int64_t heads) {
  if (mask.has_value() && cu_seqlens.has_value())
    Fail({op, "mask"}, "none beside cu_seqlens, which already separates the sequences", Describe(*mask));
  const int64_t tokens = input.size(input.dim() - 2);
  return AsMask(op, mask, sequences, heads, tokens, tokens);
}

}  // namespace squeezebert::torch_ops
