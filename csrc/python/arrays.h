// NumPy arrays as the C API takes them. Each As* function checks one argument and returns a view together with the
// array that keeps it alive: the caller's own where its strides allow that, else a copy. All of them need the GIL.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "squeezebert.h"

namespace squeezebert::python {

namespace py = pybind11;
using OptionalArray = std::optional<py::array>;

/// Throws ValueError with the parts written one after the other.
template <typename... Parts>
[[noreturn]] void Fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw py::value_error(text.str());
}

/// "float64 [2, 128, 768]": how messages say what came.
std::string Describe(const py::array& array);

/// Throws what a status other than OK means in Python, with the library's text: ValueError for an argument or a pack,
/// MemoryError, else RuntimeError.
void CheckStatus(squeezebert_status status);

/// A contiguous, aligned array of T with the same values. ensure() gives a null one when there is no memory for a copy.
template <typename T>
py::array_t<T> ContiguousAs(const py::array& array) {
  constexpr int kFlags = py::array::c_style | py::array::forcecast | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  auto contiguous = py::array_t<T, kFlags>::ensure(array);
  if (!contiguous) {
    PyErr_SetString(PyExc_MemoryError, ("no memory for a contiguous copy of " + Describe(array)).c_str());
    throw py::error_already_set();
  }
  return contiguous;
}

/// A float32 array as a matrix: rows x channels, channels next to each other, rows `stride` floats apart.
struct Rows {
  py::array owner;
  const float* data;
  int64_t rows;
  int64_t channels;
  int64_t stride;
};

/// Any array of rank >= 1; all dimensions but the last become rows.
Rows AsRows(const std::string& name, const py::array& array);

/// The same, with as many channels as told.
Rows AsRows(const std::string& name, const py::array& array, int64_t channels);

/// An uninitialised float32 array: like's sizes with `channels` for the last.
py::array_t<float> EmptyRows(const py::array& like, int64_t channels);

/// A contiguous float32 vector of the given length; data is null for None.
struct Vector {
  py::array owner;
  const float* data = nullptr;
};
Vector AsVector(const std::string& name, const OptionalArray& array, int64_t length);

/// Rows that form sequences, and where each begins: sequences + 1 offsets.
struct Sequences {
  Rows rows;
  std::vector<int32_t> offsets;
  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }
  /// The most tokens that any one has.
  int64_t longest() const;
};

/// [N, S, C] (N sequences), [S, C] (one), or, with cu_seqlens, packed tokens [T, C].
Sequences AsSequences(const std::string& name, const py::array& array, const OptionalArray& cu_seqlens);

/// An additive float32 mask, or a boolean one (True = attend; False adds the lowest float), that broadcasts to
/// [sequences, heads, queries, keys].
struct Mask {
  py::array owner;
  squeezebert_mask view;
  const squeezebert_mask* get() const { return view.data == nullptr ? nullptr : &view; }
};
Mask AsMask(const OptionalArray& mask, int64_t sequences, int64_t heads, int64_t queries, int64_t keys);

/// Integers of any width that broadcast to the sizes of `like`, as contiguous int64.
py::array_t<int64_t> AsIds(const std::string& name, const py::array& ids, const py::array& like);

/// 0..S-1 along the last dimension of input_ids [..., S].
py::array PositionsOf(const py::array& input_ids);

/// A contiguous float32 [rows, channels].
struct Table {
  py::array owner;
  const float* data;
  int64_t rows;
  int64_t channels;
};
Table AsTable(const std::string& name, const py::array& array, std::optional<int64_t> channels = std::nullopt);

/// weight and bias [channels], and epsilon.
struct LayerNorm {
  Vector weight;
  Vector bias;
  squeezebert_layer_norm view;
};
LayerNorm AsLayerNorm(const std::string& weight_name, const py::array& weight, const std::string& bias_name,
                      const py::array& bias, int64_t channels, float epsilon);

/// The format of that name, which is a NumPy dtype's.
squeezebert_format FormatNamed(const std::string& argument, const std::string& name);

}  // namespace squeezebert::python
