// What the Arm cores of this machine are, as far as the choice of kernels cares.
#pragma once

namespace squeezebert {

// Whether every core issues in order. Where a fast cluster stands beside a small one, work that matters runs on the
// fast one, so one out-of-order core makes this false; so does anything unknown.
bool arm_cores_in_order();

}  // namespace squeezebert
