// SQUEEZEBERT_HOT_LOOP("name")(x) is x, a Vec that every pass of a loop uses, and names the loop in the built code, for
// `make arm-analysis` and `make arm-count`. It costs no instruction: section .debug_hot_loops, which is not loaded and
// goes where debug information goes, has the address it stands at and the name. The compiler sees an operation on x and
// nothing else, not a volatile statement, which would keep it from counting the loop's passes ahead.
#pragma once

#if defined(__ARM_NEON) && defined(__ELF__)
// clang-format off
#define SQUEEZEBERT_HOT_LOOP(name)         \
  [](auto x) __attribute__((always_inline)) { \
    asm("1:\n"                             \
        ".pushsection .debug_hot_loops\n"  \
        ".8byte 1b\n"                      \
        ".asciz \"" name "\"\n"            \
        ".popsection" : "+w"(x.v));        \
    return x;                              \
  }
// clang-format on
#else
#define SQUEEZEBERT_HOT_LOOP(name) [](auto x) { return x; }
#endif
