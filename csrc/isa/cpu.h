// What this machine's cores are, as far as the choice of kernels and of block sizes cares.
#pragma once

#include <cstdint>

namespace squeezebert {

#if defined(__x86_64__)
// Whether the cores have all that `avx512` and `avx2` are compiled with, and the operating system saves the registers.
bool has_avx512();
bool has_avx2();
// Whether they have VPDPBUSD beside those: for 512 bits, and for 256 bits without AVX-512.
bool has_avx512_vnni();
bool has_avx_vnni();
#endif

#if defined(__aarch64__)
// Whether every core issues in order. Where a fast cluster stands beside a small one, work that matters runs on the
// fast one, so one out-of-order core makes this false; so does anything unknown.
bool arm_cores_in_order();

// Whether the cores have float16 arithmetic (Armv8.2's FEAT_FP16, Linux's asimdhp).
bool arm_multiplies_half();
#endif

// Bytes of a core's level 2 cache (of the largest core's, where they differ), from which the engine derives its block
// sizes; 1 MiB where the machine does not say. No result depends on it.
int64_t level2_cache_bytes();

}  // namespace squeezebert
