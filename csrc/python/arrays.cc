#include "python/arrays.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "bindings/layout.h"

namespace squeezebert::python {
namespace {

constexpr auto kFloatBytes = static_cast<py::ssize_t>(sizeof(float));

bool IsFloat32(const py::array& array) { return array.dtype().equal(py::dtype::of<float>()); }

void CheckFloat32(const std::string& name, const py::array& array) {
  if (!IsFloat32(array)) Fail(name, ": expected a float32 array, got ", Describe(array));
}

bool IsAligned(const py::array& array) { return (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0; }

py::array Contiguous(const py::array& array) { return ContiguousAs<float>(array); }

/// Before a copy of a broadcast array asks for the memory.
void CheckTokenCount(const std::string& name, const py::array& array, int64_t tokens) {
  if (tokens > std::numeric_limits<int32_t>::max())
    Fail(name, ": expected fewer than 2^31 tokens, got ", Describe(array));
}

/// In floats; nothing where a stride is no whole number of them, or the rows do not lie as the kernels read them.
std::optional<int64_t> RowStride(const py::array& array) {
  if (!IsAligned(array)) return std::nullopt;
  std::vector<int64_t> sizes, strides;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    if (array.strides(i) % kFloatBytes != 0 && array.shape(i) > 1) return std::nullopt;
    sizes.push_back(array.shape(i));
    strides.push_back(array.strides(i) / kFloatBytes);
  }
  return bindings::RowStride(sizes, strides);
}

std::vector<int32_t> CheckedOffsets(const py::array& cu_seqlens, int64_t tokens) {
  if (cu_seqlens.ndim() != 1 || cu_seqlens.size() < 1 || !cu_seqlens.dtype().equal(py::dtype::of<int32_t>())) {
    Fail("cu_seqlens: expected int32 [sequences + 1], got ", Describe(cu_seqlens));
  }
  const auto view = py::array_t<int32_t>(cu_seqlens).unchecked<1>();
  std::vector<int32_t> offsets(static_cast<size_t>(view.shape(0)));
  for (size_t i = 0; i < offsets.size(); ++i) offsets[i] = view(static_cast<py::ssize_t>(i));
  if (const auto wrong = bindings::CheckOffsets(offsets, tokens)) {
    Fail("cu_seqlens: expected ", wrong->expected, ", got ", wrong->got);
  }
  return offsets;
}

py::array BroadcastTo(const std::string& name, const py::array& array, const py::tuple& shape) {
  try {
    return py::module_::import("numpy").attr("broadcast_to")(array, shape);
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_ValueError)) throw;
    Fail(name, ": expected sizes that broadcast to ", std::string(py::str(shape)), ", got ", Describe(array));
  }
}

}  // namespace

std::string Describe(const py::array& array) {
  std::ostringstream text;
  text << std::string(py::str(array.dtype())) << " [";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) text << (i > 0 ? ", " : "") << array.shape(i);
  text << "]";
  return text.str();
}

void CheckStatus(squeezebert_status status) {
  switch (status) {
    case SQUEEZEBERT_OK:
      return;
    case SQUEEZEBERT_INVALID_ARGUMENT:
    case SQUEEZEBERT_BAD_PACK:
      throw py::value_error(squeezebert_last_error());
    case SQUEEZEBERT_OUT_OF_MEMORY:
      PyErr_SetString(PyExc_MemoryError, squeezebert_last_error());
      throw py::error_already_set();
    case SQUEEZEBERT_UNSUPPORTED_ISA:
    case SQUEEZEBERT_HOST_ERROR:
      break;
  }
  throw std::runtime_error(squeezebert_last_error());
}

Rows AsRows(const std::string& name, const py::array& array) {
  CheckFloat32(name, array);
  if (array.ndim() < 1) Fail(name, ": expected [..., channels], got a scalar");
  Rows rows;
  rows.channels = array.shape(array.ndim() - 1);
  rows.rows = 1;
  for (py::ssize_t i = 0; i + 1 < array.ndim(); ++i) rows.rows *= array.shape(i);
  CheckTokenCount(name, array, rows.rows);
  const std::optional<int64_t> stride = RowStride(array);
  rows.stride = stride.value_or(rows.channels);
  rows.owner = stride ? array : Contiguous(array);
  rows.data = static_cast<const float*>(rows.owner.data());
  return rows;
}

Rows AsRows(const std::string& name, const py::array& array, int64_t channels) {
  Rows rows = AsRows(name, array);
  if (rows.channels != channels) Fail(name, ": expected [..., ", channels, "], got ", Describe(array));
  return rows;
}

py::array_t<float> EmptyRows(const py::array& like, int64_t channels) {
  std::vector<py::ssize_t> shape(like.shape(), like.shape() + like.ndim());
  shape.back() = channels;
  return py::array_t<float>(shape);
}

Vector AsVector(const std::string& name, const OptionalArray& array, int64_t length) {
  if (!array) return {};
  CheckFloat32(name, *array);
  if (array->ndim() != 1 || array->shape(0) != length) {
    Fail(name, ": expected float32 [", length, "], got ", Describe(*array));
  }
  Vector vector;
  vector.owner = Contiguous(*array);
  vector.data = static_cast<const float*>(vector.owner.data());
  return vector;
}

int64_t Sequences::longest() const {
  int64_t most = 0;
  for (size_t i = 1; i < offsets.size(); ++i) most = std::max<int64_t>(most, offsets[i] - offsets[i - 1]);
  return most;
}

Sequences AsSequences(const std::string& name, const py::array& array, const OptionalArray& cu_seqlens) {
  const py::ssize_t rank = array.ndim();
  if (cu_seqlens && rank != 2) Fail(name, ": expected packed tokens [T, C] with cu_seqlens, got ", Describe(array));
  if (rank != 2 && rank != 3) Fail(name, ": expected [N, S, C] or [S, C], got ", Describe(array));
  // Offsets first: they refuse sizes that it would be a pity to copy.
  std::vector<int32_t> offsets;
  if (cu_seqlens) {
    offsets = CheckedOffsets(*cu_seqlens, array.shape(0));
  } else {
    const int64_t sequences = rank == 2 ? 1 : array.shape(0), length = array.shape(rank - 2);
    if (length > 0 && sequences > std::numeric_limits<int32_t>::max() / length) {
      Fail(name, ": expected fewer than 2^31 tokens, got ", sequences, " sequences of ", length);
    }
    offsets = bindings::EqualOffsets(sequences, length);
  }
  return {AsRows(name, array), std::move(offsets)};
}

Mask AsMask(const OptionalArray& mask, int64_t sequences, int64_t heads, int64_t queries, int64_t keys) {
  if (!mask) return {{}, {}};
  const py::module_ numpy = py::module_::import("numpy");
  py::array additive = *mask;
  if (additive.dtype().equal(py::dtype::of<bool>())) {
    const py::object zero = numpy.attr("float32")(0.0f);
    const py::object lowest = numpy.attr("float32")(std::numeric_limits<float>::lowest());
    additive = numpy.attr("where")(additive, zero, lowest);
  } else if (!IsFloat32(additive)) {
    Fail("mask: expected a float32 (added to the scores) or bool (True = attend) array, got ", Describe(additive));
  }
  additive = BroadcastTo("mask", additive, py::make_tuple(sequences, heads, queries, keys));
  bool usable = IsAligned(additive) && (keys <= 1 || additive.strides(3) == kFloatBytes);
  for (py::ssize_t i = 0; i < 3; ++i) {
    const py::ssize_t stride = additive.strides(i);  // rows are the same or apart, not, say, a sliding window's
    usable = usable && (stride == 0 || (stride >= keys * kFloatBytes && stride % kFloatBytes == 0));
  }
  if (!usable) additive = Contiguous(additive);
  const auto stride = [&](py::ssize_t i) { return static_cast<int64_t>(additive.strides(i) / kFloatBytes); };
  return {additive,
          {sizeof(squeezebert_mask), static_cast<const float*>(additive.data()), stride(0), stride(1), stride(2)}};
}

py::array_t<int64_t> AsIds(const std::string& name, const py::array& ids, const py::array& like) {
  if (ids.dtype().kind() != 'i' && ids.dtype().kind() != 'u') Fail(name, ": expected integers, got ", Describe(ids));
  CheckTokenCount(name, ids, like.size());
  return ContiguousAs<int64_t>(BroadcastTo(name, ids, like.attr("shape")));
}

py::array PositionsOf(const py::array& input_ids) {
  return py::module_::import("numpy").attr("arange")(input_ids.shape(input_ids.ndim() - 1));
}

Table AsTable(const std::string& name, const py::array& array, std::optional<int64_t> channels) {
  CheckFloat32(name, array);
  if (array.ndim() != 2 || (channels && array.shape(1) != *channels)) {
    const std::string expected = channels ? std::to_string(*channels) : "channels";
    Fail(name, ": expected float32 [rows, ", expected, "], got ", Describe(array));
  }
  const py::array owner = Contiguous(array);
  return {owner, static_cast<const float*>(owner.data()), array.shape(0), array.shape(1)};
}

LayerNorm AsLayerNorm(const std::string& weight_name, const py::array& weight, const std::string& bias_name,
                      const py::array& bias, int64_t channels, float epsilon) {
  LayerNorm norm{AsVector(weight_name, weight, channels), AsVector(bias_name, bias, channels), {}};
  norm.view = {norm.weight.data, norm.bias.data, epsilon};
  return norm;
}

squeezebert_format FormatNamed(const std::string& argument, const std::string& name) {
  std::string names;
  for (int i = 0; const char* known = squeezebert_format_name(static_cast<squeezebert_format>(i)); ++i) {
    if (name == known) return static_cast<squeezebert_format>(i);
    names += (i > 0 ? ", " : "") + std::string(known);
  }
  Fail(argument, ": expected one of ", names, ", got ", name);
}

}  // namespace squeezebert::python
