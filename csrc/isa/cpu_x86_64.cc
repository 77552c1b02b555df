#include "isa/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>

namespace squeezebert {

namespace {

bool has_f16c() {  // clang before 18 does not let one ask __builtin_cpu_supports for it
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

struct Leaf {
  unsigned eax, ebx, ecx, edx;
};
bool has_leaf_7(unsigned part, unsigned Leaf::* in, int bit) {
  Leaf leaf{};
  return __get_cpuid_count(7, part, &leaf.eax, &leaf.ebx, &leaf.ecx, &leaf.edx) && (leaf.*in >> bit & 1) != 0;
}

// AMD since Zen 4, the first with AVX512-BF16: family 19h, which Zen 3 has too, and later.
bool is_recent_amd() {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid(0, &eax, &ebx, &ecx, &edx)) return false;
  const bool amd = ebx == signature_AMD_ebx && ecx == signature_AMD_ecx && edx == signature_AMD_edx;
  if (!amd || !__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return false;
  const unsigned family = (eax >> 8 & 0xf) + (eax >> 20 & 0xff);
  return family >= 0x19;
}

}  // namespace

// __builtin_cpu_supports also asks the operating system whether it saves the registers.
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && has_avx2();
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

// A product is looked up in every call, and CPUID takes some 50 microseconds on a virtual machine.
bool has_avx512_vnni() {
  static const bool answer = has_leaf_7(0, &Leaf::ecx, 11);
  return answer;
}
bool has_avx_vnni() {
  static const bool answer = has_leaf_7(1, &Leaf::eax, 4);
  return answer;
}

bool has_avx512_bf16() {
  static const bool answer = has_leaf_7(1, &Leaf::eax, 5);
  return answer;
}

Choice where_bfloat16_pays() {
  static const bool pays = is_recent_amd();
  return {pays, "VDPBF16PS is known to be as fast as float32's FMA on AMD's cores only"};
}

}  // namespace squeezebert
#endif
