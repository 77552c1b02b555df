// The floating-point environment of all that is computed: round to nearest, denormals kept, nothing trapped.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <cfenv>
#endif

namespace squeezebert {

// Sets the default environment on the calling thread for as long as this lives, and puts back the thread's own: hosts
// set flush-to-zero, or another rounding, for work of theirs, and the threads that they start inherit it. Where it is
// the default already, which it nearly always is, this reads one register and writes none.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() : before_(read()) {
    if (!is_default(before_)) write(kDefault);
  }
  ~DefaultFloatEnvironment() {
    if (!is_default(before_)) write(before_);
  }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
#if defined(__x86_64__)
  using Control = unsigned;
  static constexpr Control kDefault = 0x1f80;  // MXCSR: every exception masked; no FTZ, no DAZ; to nearest
  static constexpr Control kFlags = 0x3f;      // exceptions that have happened: no choice of anybody's
  static Control read() { return _mm_getcsr(); }
  static void write(Control control) { _mm_setcsr(control); }
  static bool is_default(Control control) { return (control & ~kFlags) == kDefault; }
#elif defined(__aarch64__)
  using Control = uint64_t;
  static constexpr Control kDefault = 0;  // FPCR: no FZ, FZ16, DN, AH or traps; to nearest
  static Control read() {
    Control control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    return control;
  }
  static void write(Control control) { __asm__ volatile("msr fpcr, %0" : : "r"(control) : "memory"); }
  static bool is_default(Control control) { return control == kDefault; }
#else
  using Control = int;
  static constexpr Control kDefault = FE_TONEAREST;
  static Control read() { return std::fegetround(); }
  static void write(Control control) { std::fesetround(control); }
  static bool is_default(Control control) { return control == kDefault; }
#endif

  const Control before_;
};

}  // namespace squeezebert
