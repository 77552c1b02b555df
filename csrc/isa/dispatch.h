// Which kernels run: every ISA built in, those this CPU has, and the one in use.
#pragma once

#include "engine/status.h"
#include "kernels/kernels.h"

namespace squeezebert {

// The names of the usable ISAs, best first; null past the last.
const char* usable_isa(int index);

// The kernels in use, for weights of this dtype; null, with the error set, when SQUEEZEBERT_FORCE_ISA names what cannot
// be used.
const Kernels* active_kernels(squeezebert_dtype dtype = SQUEEZEBERT_FLOAT32);

// null: back to the environment variable's, or the best.
squeezebert_status force_isa(const char* name);

}  // namespace squeezebert
