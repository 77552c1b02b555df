// The computing context of the calling thread, and how many threads it uses.
#pragma once

#include <cstdint>

#include "squeezebert.h"

namespace squeezebert::python {

/// Threads that calls use from now on: squeezebert_default_workers(), until set.
int32_t NumThreads();
void SetNumThreads(int32_t threads);

/// This thread's own context on the library's thread pool, set to NumThreads() workers. Needs the GIL.
squeezebert_context* ThreadContext();

}  // namespace squeezebert::python
