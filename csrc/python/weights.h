// Packed weights: what the NumPy functions take as the weight of a layer.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "python/arrays.h"

namespace squeezebert::python {

/// A weight as whole numbers and scales: values int8 [out, in / groups] or [out, in / groups, K], scale float32 with 1
/// in place of in / groups.
struct QuantizedWeight {
  py::array values;
  py::array scale;
};
QuantizedWeight Quantize(const py::array& weight);

/// A weight in the form that the product in use reads; Python's squeezebert_kernels._native.PackedWeight.
class PackedWeight {
 public:
  /// dtype: the name of the format to pack it as; without it, the one that the weight has.
  PackedWeight(const py::array& weight, int64_t groups, const std::optional<std::string>& dtype);
  PackedWeight(const QuantizedWeight& weight, int64_t groups);
  /// From the bytes that State() gave, where the same ISA is active.
  explicit PackedWeight(std::string_view state);

  const squeezebert_conv_shape& shape() const { return shape_; }
  squeezebert_format format() const { return format_; }
  size_t bytes() const { return bytes_; }
  std::string_view State() const { return {reinterpret_cast<const char*>(packed_.get()), bytes_}; }
  squeezebert_linear WithBias(const Vector& bias) const { return {packed_.get(), bytes_, bias.data}; }

  /// [out, in / groups, K], rounded to the format.
  py::array_t<float> Unpack() const;
  QuantizedWeight UnpackQuantized() const;

 private:
  void Allocate();

  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* memory) const { ::operator delete(memory, kAlignment); }
  };
  squeezebert_conv_shape shape_;
  squeezebert_format format_;
  size_t bytes_ = 0;
  std::unique_ptr<std::byte, Free> packed_;
};

/// A packed weight and its bias, checked against the channels that come in.
struct Linear {
  squeezebert_format format;
  Vector bias;
  squeezebert_linear view;
  int64_t out_channels;
};
Linear AsLinear(const std::string& weight_name, const PackedWeight& weight, const std::string& bias_name,
                const OptionalArray& bias, int64_t in_channels);

}  // namespace squeezebert::python
