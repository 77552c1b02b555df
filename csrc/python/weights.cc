#include "python/weights.h"

#include <cstring>
#include <vector>

namespace squeezebert::python {
namespace {

/// Of [out, in / groups] or [out, in / groups, K].
squeezebert_conv_shape ShapeOf(const char* name, const py::array& array, int64_t groups) {
  if (array.ndim() != 2 && array.ndim() != 3) {
    Fail(name,
         ": expected [out_channels, in_channels / groups] or [out_channels, in_channels / groups, kernel_size], got ",
         Describe(array));
  }
  if (groups < 1 || groups > array.shape(0) || array.shape(0) % groups != 0) {
    Fail("groups: expected a number that divides ", array.shape(0), " output channels, got ", groups);
  }
  return {array.shape(0), array.shape(1) * groups, groups, array.ndim() == 3 ? array.shape(2) : 1};
}

std::vector<py::ssize_t> Sizes(const py::array& array) { return {array.shape(), array.shape() + array.ndim()}; }

std::vector<py::ssize_t> ScaleSizes(std::vector<py::ssize_t> sizes) {
  sizes[1] = 1;
  return sizes;
}

void CheckFloats(const py::array& weight) {
  if (weight.dtype().kind() != 'f') Fail("weight: expected floating-point numbers, got ", Describe(weight));
}

/// Calls a function of the C API without the GIL.
template <typename... Parameters, typename... Arguments>
void Run(squeezebert_status (*function)(Parameters...), const Arguments&... arguments) {
  squeezebert_status status;
  {
    const py::gil_scoped_release release;
    status = function(arguments...);
  }
  CheckStatus(status);
}

}  // namespace

QuantizedWeight Quantize(const py::array& weight) {
  CheckFloats(weight);
  const squeezebert_conv_shape shape = ShapeOf("weight", weight, /*groups=*/1);
  const auto plain = ContiguousAs<float>(weight);
  py::array_t<int8_t> values(Sizes(weight));
  py::array_t<float> scale(ScaleSizes(Sizes(weight)));
  Run(squeezebert_quantize, &shape, plain.data(), values.mutable_data(), scale.mutable_data());
  return {values, scale};
}

PackedWeight::PackedWeight(const py::array& weight, int64_t groups, const std::optional<std::string>& dtype) {
  CheckFloats(weight);
  format_ = dtype ? FormatNamed("dtype", *dtype) : FormatNamed("weight", py::str(weight.dtype()));
  shape_ = ShapeOf("weight", weight, groups);
  Allocate();
  const auto plain = ContiguousAs<float>(weight);
  Run(squeezebert_pack, &shape_, format_, plain.data(), packed_.get(), bytes_);
}

PackedWeight::PackedWeight(const QuantizedWeight& weight, int64_t groups) : format_(SQUEEZEBERT_INT8) {
  const auto& [values, scale] = weight;
  shape_ = ShapeOf("values", values, groups);
  const std::vector<py::ssize_t> sizes = ScaleSizes(Sizes(values));
  if (!values.dtype().equal(py::dtype::of<int8_t>())) Fail("values: expected an int8 array, got ", Describe(values));
  if (!scale.dtype().equal(py::dtype::of<float>()) || Sizes(scale) != sizes) {
    Fail("scale: expected ", Describe(py::array_t<float>(sizes)), " beside values ", Describe(values), ", got ",
         Describe(scale));
  }
  Allocate();
  const auto numbers = ContiguousAs<int8_t>(values);
  const auto factors = ContiguousAs<float>(scale);
  Run(squeezebert_pack_quantized, &shape_, numbers.data(), factors.data(), packed_.get(), bytes_);
}

PackedWeight::PackedWeight(std::string_view state) : bytes_(state.size()) {
  packed_.reset(static_cast<std::byte*>(::operator new(bytes_, kAlignment)));
  std::memcpy(packed_.get(), state.data(), state.size());
  CheckStatus(squeezebert_packed_shape(packed_.get(), bytes_, &shape_, &format_));
}

py::array_t<float> PackedWeight::Unpack() const {
  py::array_t<float> weight({shape_.out_channels, shape_.in_channels / shape_.groups, shape_.kernel_size});
  Run(squeezebert_unpack, packed_.get(), bytes_, weight.mutable_data(), static_cast<size_t>(weight.nbytes()));
  return weight;
}

QuantizedWeight PackedWeight::UnpackQuantized() const {
  py::array_t<int8_t> values({shape_.out_channels, shape_.in_channels / shape_.groups, shape_.kernel_size});
  py::array_t<float> scale(ScaleSizes(Sizes(values)));
  if (format_ != SQUEEZEBERT_INT8) {
    Fail("weight: expected one packed as int8, got one packed as ", squeezebert_format_name(format_));
  }
  Run(squeezebert_unpack_quantized, packed_.get(), bytes_, values.mutable_data(), scale.mutable_data());
  return {values, scale};
}

void PackedWeight::Allocate() {
  CheckStatus(squeezebert_packed_size(&shape_, format_, &bytes_));
  packed_.reset(static_cast<std::byte*>(::operator new(bytes_, kAlignment)));
}

Linear AsLinear(const std::string& weight_name, const PackedWeight& weight, const std::string& bias_name,
                const OptionalArray& bias, int64_t in_channels) {
  const squeezebert_conv_shape& shape = weight.shape();
  if (shape.in_channels != in_channels) {
    Fail(weight_name, ": expected a packed weight for ", in_channels, " input channels, got one for ",
         shape.in_channels);
  }
  Linear linear{weight.format(), AsVector(bias_name, bias, shape.out_channels), {}, shape.out_channels};
  linear.view = weight.WithBias(linear.bias);
  return linear;
}

}  // namespace squeezebert::python
