#include "isa/dispatch.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "isa/arm_cores.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace squeezebert {

#if defined(__x86_64__)
namespace avx512 {
extern const Kernels kKernels;
}
namespace avx512_h {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx2_h {
extern const Kernels kKernels;
}
#elif defined(__aarch64__)
namespace neon {
extern const Kernels kKernels;
}
namespace neon_a55 {
extern const Kernels kKernels;
}
namespace neon_h {
extern const Kernels kKernels;
}
namespace neon_hp {
extern const Kernels kKernels;
}
#endif
namespace scalar {
extern const Kernels kKernels;
}
namespace scalar_h {
extern const Kernels kKernels;
}

namespace {

// An instruction set: its kernels for float32 weights, those for float16 weights, and whether this CPU has it.
struct Candidate {
  const Kernels* kernels;
  const Kernels* (*half)();
  bool (*supported)();
};

#if defined(__x86_64__)
bool has_f16c() {  // clang before 18 does not let one ask __builtin_cpu_supports for it
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}
#elif defined(__aarch64__)
const Kernels* neon_half() { return arm_multiplies_half() ? &neon_hp::kKernels : &neon_h::kKernels; }
#endif

// The one table: best first. __builtin_cpu_supports also asks the operating system whether it saves the registers.
constexpr Candidate kCandidates[] = {
#if defined(__x86_64__)
    {&avx512::kKernels, [] { return &avx512_h::kKernels; },
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("fma") && has_f16c();
     }},
    {&avx2::kKernels, [] { return &avx2_h::kKernels; },
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }},
#elif defined(__aarch64__)
    // Armv8-A has Advanced SIMD. Both run on any core; which is better depends on the core.
    {&neon_a55::kKernels, neon_half, [] { return arm_cores_in_order(); }},
    {&neon::kKernels, neon_half, [] { return true; }},
    {&neon_a55::kKernels, neon_half, [] { return !arm_cores_in_order(); }},
#endif
    {&scalar::kKernels, [] { return &scalar_h::kKernels; }, [] { return true; }},
};

std::atomic<const Candidate*> g_active{nullptr};

const Candidate* usable(int index) {
  for (const Candidate& candidate : kCandidates) {
    if (candidate.supported() && index-- == 0) return &candidate;
  }
  return nullptr;
}

const Candidate* find(const char* name) {
  for (int i = 0; const Candidate* candidate = usable(i); ++i) {
    if (std::strcmp(candidate->kernels->name, name) == 0) return candidate;
  }
  return nullptr;
}

squeezebert_status unusable(const char* asked_by, const char* name) {
  char names[64] = "";
  for (int i = 0; const Candidate* candidate = usable(i); ++i) {
    std::strncat(names, i ? ", " : "", sizeof names - std::strlen(names) - 1);
    std::strncat(names, candidate->kernels->name, sizeof names - std::strlen(names) - 1);
  }
  return fail(SQUEEZEBERT_UNSUPPORTED_ISA, "%s: expected an ISA that this CPU has (%s), got \"%s\"", asked_by, names,
              name);
}

const Candidate* active() {
  if (const Candidate* candidate = g_active.load(std::memory_order_relaxed)) return candidate;
  const char* name = std::getenv("SQUEEZEBERT_FORCE_ISA");
  const Candidate* candidate = name && *name ? find(name) : usable(0);
  if (!candidate) {
    unusable("SQUEEZEBERT_FORCE_ISA", name);
    return nullptr;
  }
  g_active.store(candidate, std::memory_order_relaxed);
  return candidate;
}

}  // namespace

const char* usable_isa(int index) {
  const Candidate* candidate = usable(index);
  return candidate ? candidate->kernels->name : nullptr;
}

const Kernels* active_kernels(squeezebert_dtype dtype) {
  const Candidate* candidate = active();
  if (!candidate) return nullptr;
  return dtype == SQUEEZEBERT_FLOAT16 ? candidate->half() : candidate->kernels;
}

squeezebert_status force_isa(const char* name) {
  const Candidate* candidate = name ? find(name) : nullptr;
  if (name && !candidate) return unusable("isa", name);
  g_active.store(candidate, std::memory_order_relaxed);
  return active() ? SQUEEZEBERT_OK : SQUEEZEBERT_UNSUPPORTED_ISA;
}

}  // namespace squeezebert
