#include "isa/dispatch.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "isa/arm_cores.h"

namespace squeezebert {

#if defined(__x86_64__)
namespace avx512 {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
#elif defined(__aarch64__)
namespace neon {
extern const Kernels kKernels;
}
namespace neon_a55 {
extern const Kernels kKernels;
}
#endif
namespace scalar {
extern const Kernels kKernels;
}

namespace {

struct Candidate {
  const Kernels* kernels;
  bool (*supported)();
};

// The one table: best first. __builtin_cpu_supports also asks the operating system whether it saves the registers.
constexpr Candidate kCandidates[] = {
#if defined(__x86_64__)
    {&avx512::kKernels,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
     }},
    {&avx2::kKernels, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#elif defined(__aarch64__)
    // Armv8-A has Advanced SIMD. Both run on any core; which is better depends on the core.
    {&neon_a55::kKernels, [] { return arm_cores_in_order(); }},
    {&neon::kKernels, [] { return true; }},
    {&neon_a55::kKernels, [] { return !arm_cores_in_order(); }},
#endif
    {&scalar::kKernels, [] { return true; }},
};

std::atomic<const Kernels*> g_active{nullptr};

const Kernels* find(const char* name) {
  for (int i = 0; const Kernels* kernels = usable_kernels(i); ++i) {
    if (std::strcmp(kernels->name, name) == 0) return kernels;
  }
  return nullptr;
}

squeezebert_status unusable(const char* asked_by, const char* name) {
  char usable[64] = "";
  for (int i = 0; const Kernels* kernels = usable_kernels(i); ++i) {
    std::strncat(usable, i ? ", " : "", sizeof usable - std::strlen(usable) - 1);
    std::strncat(usable, kernels->name, sizeof usable - std::strlen(usable) - 1);
  }
  return fail(SQUEEZEBERT_UNSUPPORTED_ISA, "%s: expected an ISA that this CPU has (%s), got \"%s\"", asked_by, usable,
              name);
}

}  // namespace

const Kernels* usable_kernels(int index) {
  for (const Candidate& candidate : kCandidates) {
    if (candidate.supported() && index-- == 0) return candidate.kernels;
  }
  return nullptr;
}

const Kernels* active_kernels() {
  if (const Kernels* kernels = g_active.load(std::memory_order_relaxed)) return kernels;
  const char* name = std::getenv("SQUEEZEBERT_FORCE_ISA");
  const Kernels* kernels = name && *name ? find(name) : usable_kernels(0);
  if (!kernels) {
    unusable("SQUEEZEBERT_FORCE_ISA", name);
    return nullptr;
  }
  g_active.store(kernels, std::memory_order_relaxed);
  return kernels;
}

squeezebert_status force_kernels(const char* name) {
  const Kernels* kernels = name ? find(name) : nullptr;
  if (name && !kernels) return unusable("isa", name);
  g_active.store(kernels, std::memory_order_relaxed);
  return active_kernels() ? SQUEEZEBERT_OK : SQUEEZEBERT_UNSUPPORTED_ISA;
}

}  // namespace squeezebert
