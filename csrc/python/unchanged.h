// Whether Python objects are still what they were: what an optimized model asks before every call.
#pragma once

#include <pybind11/pybind11.h>

namespace squeezebert::python {

/// places: owner, key, value, owner, key, value, ...: at every key of a dictionary, or as every attribute of an owner
/// that is none, is that very value; None also stands for nothing.
/// objects: object, class, dictionary, length, object, ...: every object is of that very class, and every dictionary
/// has so many items.
bool Unchanged(const pybind11::tuple& places, const pybind11::tuple& objects);

}  // namespace squeezebert::python
