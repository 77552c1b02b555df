// squeezebert_kernels._native: the C API for NumPy arrays.
#include <pybind11/pybind11.h>

#include "squeezebert.h"

PYBIND11_MODULE(_native, module) {
  module.doc() = "The kernels for NumPy arrays.";
  module.def("version", &squeezebert_version, "\"major.minor.patch\" of the compiled library.");
}
