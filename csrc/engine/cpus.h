// How many CPUs there are for this process.
#pragma once

#include <cstdint>

namespace squeezebert {

// Those that its affinity allows, or as many as the CPU quota of its cgroups comes to, rounded up; at least 1.
int64_t usable_cpus();

// The quota of the cgroup (version 1 or 2) that `membership` names (the text of /proc/self/cgroup) and of all above it,
// in CPUs, rounded up; INT64_MAX when there is none. `root` is where the cgroup file systems are mounted.
int64_t cgroup_cpus(const char* root, const char* membership);

}  // namespace squeezebert
