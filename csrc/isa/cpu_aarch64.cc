#include "isa/cpu.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

#include <cstdint>
#include <cstdio>

namespace squeezebert {

namespace {

// Implementer and part of the Main ID Register: bits 31-24 and 15-4.
struct Core {
  int implementer, part;
};
constexpr int kArm = 0x41, kQualcomm = 0x51;

template <int kCount>
bool is_one_of(const Core (&cores)[kCount], uint64_t midr) {
  for (const Core core : cores) {
    if ((midr >> 24 & 0xff) == static_cast<uint64_t>(core.implementer) &&
        (midr >> 4 & 0xfff) == static_cast<uint64_t>(core.part)) {
      return true;
    }
  }
  return false;
}

bool in_order(uint64_t midr) {
  constexpr Core kCores[] = {
      {kArm, 0xd03},                                               // Cortex-A53
      {kArm, 0xd04},                                               // Cortex-A35
      {kArm, 0xd05},                                               // Cortex-A55
      {kArm, 0xd46},                                               // Cortex-A510
      {kArm, 0xd80},                                               // Cortex-A520
      {kQualcomm, 0x801}, {kQualcomm, 0x803}, {kQualcomm, 0x805},  // Kryo Silver: A53, A55, A55
  };
  return is_one_of(kCores, midr);
}

bool starts_bfmmla_as_fmla(uint64_t midr) {
  constexpr Core kCores[] = {{kArm, 0xd40}, {kArm, 0xd49}, {kArm, 0xd4f}};  // Neoverse V1, N2, V2
  return is_one_of(kCores, midr);
}

// Where Linux shows the register of every core; false if it does not.
bool read_midr(int core, uint64_t* midr) {
  char path[96];
  std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/regs/identification/midr_el1", core);
  std::FILE* file = std::fopen(path, "re");
  if (!file) return false;
  unsigned long long value = 0;
  const bool read = std::fscanf(file, "%llx", &value) == 1;
  std::fclose(file);
  *midr = value;
  return read;
}

bool every_core(bool (*is)(uint64_t midr)) {
  uint64_t midr = 0;
  int cores = 0;
  for (; read_midr(cores, &midr); ++cores) {
    if (!is(midr)) return false;
  }
  if (cores > 0) return true;
  // Else the core that this runs on, if Linux lets user space read the register (it then emulates the instruction).
  constexpr unsigned long kHwcapCpuid = 1ul << 11;
  if (!(getauxval(AT_HWCAP) & kHwcapCpuid)) return false;
  asm("mrs %0, midr_el1" : "=r"(midr));
  return is(midr);
}

}  // namespace

bool arm_cores_in_order() {
  static const bool answer = every_core(in_order);
  return answer;
}

bool arm_multiplies_half() {
  constexpr unsigned long kHwcapAsimdhp = 1ul << 10;
  return (getauxval(AT_HWCAP) & kHwcapAsimdhp) != 0;
}

bool arm_has_dotprod() {
  constexpr unsigned long kHwcapAsimddp = 1ul << 20;
  return (getauxval(AT_HWCAP) & kHwcapAsimddp) != 0;
}

bool arm_has_i8mm() {
  constexpr unsigned long kHwcap2I8mm = 1ul << 13;
  return (getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0;
}

bool arm_has_bf16() {
  constexpr unsigned long kHwcap2Bf16 = 1ul << 14;
  return (getauxval(AT_HWCAP2) & kHwcap2Bf16) != 0;
}

Choice where_bfmmla_pays() {
  static const bool pays = every_core(starts_bfmmla_as_fmla);
  return {pays, "BFMMLA is known to be faster than float32's FMLA on Neoverse V1, N2 and V2 only"};
}

}  // namespace squeezebert
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#include <initializer_list>

namespace squeezebert {

namespace {

bool has_feature(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    int has = 0;
    size_t bytes = sizeof has;
    if (sysctlbyname(name, &has, &bytes, nullptr, 0) == 0 && has != 0) return true;
  }
  return false;
}

}  // namespace

bool arm_cores_in_order() { return false; }

// From the A11 and the M1 on. The first name is today's, the second that of systems before macOS 12 and iOS 15.
bool arm_multiplies_half() { return has_feature({"hw.optional.arm.FEAT_FP16", "hw.optional.neon_fp16"}); }

bool arm_has_dotprod() { return has_feature({"hw.optional.arm.FEAT_DotProd"}); }
bool arm_has_i8mm() { return has_feature({"hw.optional.arm.FEAT_I8MM"}); }
bool arm_has_bf16() { return has_feature({"hw.optional.arm.FEAT_BF16"}); }

Choice where_bfmmla_pays() { return {false, "BFMMLA is slower than float32's FMLA on Apple's cores"}; }

}  // namespace squeezebert
#elif defined(__aarch64__)
namespace squeezebert {
bool arm_cores_in_order() { return false; }
bool arm_multiplies_half() { return false; }
bool arm_has_dotprod() { return false; }
bool arm_has_i8mm() { return false; }
bool arm_has_bf16() { return false; }
Choice where_bfmmla_pays() { return false; }
}  // namespace squeezebert
#endif

#if defined(__aarch64__)
namespace squeezebert {

Choice where_cores_issue_in_order() { return {arm_cores_in_order(), "cores of this machine reorder instructions"}; }

}  // namespace squeezebert
#endif
