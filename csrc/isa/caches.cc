#include <cstddef>
#include <cstdio>
#include <cstring>

#include "isa/cpu.h"

#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace squeezebert {

namespace {

#if defined(__APPLE__)
int64_t detect() {
  int64_t bytes = 0;
  size_t size = sizeof bytes;
  return sysctlbyname("hw.perflevel0.l2cachesize", &bytes, &size, nullptr, 0) == 0 ? bytes : 0;
}
#else
// The first line of a file that Linux shows of core `core`'s cache `index`; empty where there is none.
void read_line(int core, int index, const char* name, char (&line)[32]) {
  line[0] = '\0';
  char path[96];
  std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/%s", core, index, name);
  std::FILE* file = std::fopen(path, "re");
  if (!file) return;
  if (!std::fgets(line, sizeof line, file)) line[0] = '\0';
  std::fclose(file);
}

// Of the largest core. Cores beyond these are taken to be like them.
int64_t detect() {
  constexpr int kCores = 16, kCaches = 4;
  int64_t most = 0;
  for (int core = 0; core < kCores; ++core) {
    for (int index = 0; index < kCaches; ++index) {
      char line[32];
      read_line(core, index, "level", line);
      if (std::strcmp(line, "2\n") != 0) continue;
      read_line(core, index, "size", line);  // "512K"
      long long size = 0;
      char unit = '\0';
      if (std::sscanf(line, "%lld%c", &size, &unit) != 2) continue;
      const int64_t bytes = size * (unit == 'K' ? 1 << 10 : unit == 'M' ? 1 << 20 : 0);
      if (bytes > most) most = bytes;
    }
  }
  return most;
}
#endif

}  // namespace

int64_t level2_cache_bytes() {
  static const int64_t bytes = [] {
    constexpr int64_t kFallback = 1 << 20, kLeast = 128 << 10, kMost = 16 << 20;
    const int64_t detected = detect();
    return detected < kLeast || detected > kMost ? kFallback : detected;
  }();
  return bytes;
}

}  // namespace squeezebert
