#include "python/unchanged.h"

namespace squeezebert::python {
namespace py = pybind11;
namespace {

/// The fields of each record in a flat tuple.
template <size_t kFields, class Body>
bool AllOf(const py::tuple& records, const char* name, const Body& body) {
  const auto size = static_cast<size_t>(PyTuple_GET_SIZE(records.ptr()));
  if (size % kFields != 0)
    throw py::value_error(std::string(name) + ": expected " + std::to_string(kFields) + " fields each, got " +
                          std::to_string(size));
  PyObject* const* const fields = &PyTuple_GET_ITEM(records.ptr(), 0);
  for (size_t i = 0; i < size; i += kFields) {
    if (!body(fields + i)) return false;
  }
  return true;
}

bool IsAt(PyObject* owner, PyObject* key, PyObject* value) {
  if (!PyDict_Check(owner)) {
    const auto attribute = py::reinterpret_steal<py::object>(PyObject_GetAttr(owner, key));
    if (attribute) return attribute.ptr() == value;
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) throw py::error_already_set();
    PyErr_Clear();
    return value == Py_None;
  }
  PyObject* const found = PyDict_GetItemWithError(owner, key);  // borrowed
  if (!found && PyErr_Occurred()) throw py::error_already_set();
  return found == value || (!found && value == Py_None);
}

}  // namespace

bool Unchanged(const py::tuple& places, const py::tuple& objects) {
  return AllOf<3>(places, "places", [](PyObject* const* f) { return IsAt(f[0], f[1], f[2]); }) &&
         AllOf<4>(objects, "objects", [](PyObject* const* f) {
           if (!PyDict_Check(f[2])) throw py::type_error("objects: expected a dictionary as every third field");
           return reinterpret_cast<PyObject*>(Py_TYPE(f[0])) == f[1] && PyDict_GET_SIZE(f[2]) == PyLong_AsSsize_t(f[3]);
         });
}

}  // namespace squeezebert::python
