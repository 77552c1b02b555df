// What this machine's cores are, as far as the choice of kernels and of block sizes cares.
#pragma once

#include <cstdint>

namespace squeezebert {

// Whether a product is to be chosen on this machine, and what speaks against it where it is not.
struct Choice {
  constexpr Choice(bool yes, const char* against = "") : yes(yes), against(against) {}
  bool yes;
  const char* against;
};

#if defined(__x86_64__)
// Whether the cores have all that `avx512` and `avx2` are compiled with, and the operating system saves the registers.
bool has_avx512();
bool has_avx2();
// Whether they have VPDPBUSD beside those: for 512 bits, and for 256 bits without AVX-512.
bool has_avx512_vnni();
bool has_avx_vnni();

// AVX512-BF16, of a machine with AVX-512. It pays on Zen 4 and 5; Sapphire Rapids runs VDPBF16PS at half of float32's
// rate, and what other cores do has not been measured.
bool has_avx512_bf16();
Choice where_bfloat16_pays();
#endif

#if defined(__aarch64__)
// Whether every core issues in order. Where a fast cluster stands beside a small one, work that matters runs on the
// fast one, so one out-of-order core makes this false; so does anything unknown.
bool arm_cores_in_order();
Choice where_cores_issue_in_order();

// Whether the cores have float16 arithmetic (Armv8.2's FEAT_FP16, Linux's asimdhp).
bool arm_multiplies_half();

// SDOT (FEAT_DotProd), SMMLA (FEAT_I8MM), BFMMLA and BFCVT (FEAT_BF16).
bool arm_has_dotprod();
bool arm_has_i8mm();
bool arm_has_bf16();
// Neoverse V1, N2 and V2 start a BFMMLA where they start an FMLA. Cortex-A510 does not, Apple's cores are slower with
// it than in float32, and what others do is not known.
Choice where_bfmmla_pays();
#endif

// Bytes of a core's level 2 cache (of the largest core's, where they differ), from which the engine derives its block
// sizes; 1 MiB where the machine does not say. No result depends on it.
int64_t level2_cache_bytes();

}  // namespace squeezebert
