// What the Arm cores of this machine are, as far as the choice of kernels cares.
#pragma once

namespace squeezebert {

// Whether every core issues in order. Where a fast cluster stands beside a small one, work that matters runs on the
// fast one, so one out-of-order core makes this false; so does anything unknown.
bool arm_cores_in_order();

// Whether the cores have float16 arithmetic (Armv8.2's FEAT_FP16, Linux's asimdhp).
bool arm_multiplies_half();

}  // namespace squeezebert
