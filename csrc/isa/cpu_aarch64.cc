#include "isa/cpu.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

#include <cstdint>
#include <cstdio>

namespace squeezebert {

namespace {

// The Main ID Register: bits 31-24 the implementer, 15-4 the part.
bool in_order(uint64_t midr) {
  constexpr int kArm = 0x41, kQualcomm = 0x51;
  struct Core {
    int implementer, part;
  };
  constexpr Core kInOrder[] = {
      {kArm, 0xd03},                                               // Cortex-A53
      {kArm, 0xd04},                                               // Cortex-A35
      {kArm, 0xd05},                                               // Cortex-A55
      {kArm, 0xd46},                                               // Cortex-A510
      {kArm, 0xd80},                                               // Cortex-A520
      {kQualcomm, 0x801}, {kQualcomm, 0x803}, {kQualcomm, 0x805},  // Kryo Silver: A53, A55, A55
  };
  for (const Core core : kInOrder) {
    if ((midr >> 24 & 0xff) == static_cast<uint64_t>(core.implementer) &&
        (midr >> 4 & 0xfff) == static_cast<uint64_t>(core.part)) {
      return true;
    }
  }
  return false;
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

bool detect() {
  uint64_t midr = 0;
  int cores = 0;
  for (; read_midr(cores, &midr); ++cores) {
    if (!in_order(midr)) return false;
  }
  if (cores > 0) return true;
  // Else the core that this runs on, if Linux lets user space read the register (it then emulates the instruction).
  constexpr unsigned long kHwcapCpuid = 1ul << 11;
  if (!(getauxval(AT_HWCAP) & kHwcapCpuid)) return false;
  asm("mrs %0, midr_el1" : "=r"(midr));
  return in_order(midr);
}

}  // namespace

bool arm_cores_in_order() {
  static const bool answer = detect();
  return answer;
}

bool arm_multiplies_half() {
  constexpr unsigned long kHwcapAsimdhp = 1ul << 10;
  return (getauxval(AT_HWCAP) & kHwcapAsimdhp) != 0;
}

}  // namespace squeezebert
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#include <initializer_list>

namespace squeezebert {

bool arm_cores_in_order() { return false; }

// From the A11 and the M1 on. The first name is today's, the second that of systems before macOS 12 and iOS 15.
bool arm_multiplies_half() {
  for (const char* name : {"hw.optional.arm.FEAT_FP16", "hw.optional.neon_fp16"}) {
    int has = 0;
    size_t bytes = sizeof has;
    if (sysctlbyname(name, &has, &bytes, nullptr, 0) == 0 && has != 0) return true;
  }
  return false;
}

}  // namespace squeezebert
#elif defined(__aarch64__)
namespace squeezebert {
bool arm_cores_in_order() { return false; }
bool arm_multiplies_half() { return false; }
}  // namespace squeezebert
#endif
