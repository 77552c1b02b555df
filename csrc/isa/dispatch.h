// Which kernels run: every ISA built in, those this CPU has, and the one in use.
#pragma once

#include "engine/status.h"
#include "kernels/kernels.h"

namespace squeezebert {

// The usable ISAs, best first; null past the last.
const Kernels* usable_kernels(int index);

// The kernels in use; null, with the error set, when SQUEEZEBERT_FORCE_ISA names what cannot be used.
const Kernels* active_kernels();

// null: back to the environment variable's, or the best.
squeezebert_status force_kernels(const char* name);

}  // namespace squeezebert
