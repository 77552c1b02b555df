#include "engine/cpus.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace squeezebert {

namespace {

// The text of a small file, "" when there is none.
std::string read_file(const std::string& path) {
  std::string text;
  std::FILE* const file = std::fopen(path.c_str(), "re");
  if (!file) return text;
  char part[1024];
  for (size_t got; (got = std::fread(part, 1, sizeof part, file)) > 0;) text.append(part, got);
  std::fclose(file);
  return text;
}

// Microseconds of CPU time in each period of so many.
int64_t quota_cpus(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return INT64_MAX;  // version 1 says "no quota" as -1
  return quota / period + (quota % period != 0);
}

int64_t version2_cpus(const std::string& group) {
  long long quota = 0, period = 0;
  const std::string text = read_file(group + "/cpu.max");  // "max 100000" or "150000 100000"
  return std::sscanf(text.c_str(), "%lld %lld", &quota, &period) == 2 ? quota_cpus(quota, period) : INT64_MAX;
}

int64_t version1_cpus(const std::string& group) {
  return quota_cpus(std::atoll(read_file(group + "/cpu.cfs_quota_us").c_str()),
                    std::atoll(read_file(group + "/cpu.cfs_period_us").c_str()));
}

// The least of the group's quota and those of the groups above it, up to the file system's root, which in a container
// may be the group itself.
int64_t least_cpus(const std::string& root, std::string group, int64_t (*cpus)(const std::string&)) {
  int64_t least = INT64_MAX;
  for (;;) {
    least = std::min(least, cpus(root + group));
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return least;
    group.resize(slash);
  }
}

int64_t affinity_cpus() {
#if defined(__linux__)
  // The kernel refuses a set smaller than its own, whose size it does not tell.
  for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(static_cast<size_t>(cpus)),
                                                               [](cpu_set_t* s) { CPU_FREE(s); });
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(cpus));
    if (set && sched_getaffinity(0, bytes, set.get()) == 0) return CPU_COUNT_S(bytes, set.get());
  }
#endif
  return std::thread::hardware_concurrency();
}

}  // namespace

int64_t cgroup_cpus(const char* root, const char* membership) {
  int64_t least = INT64_MAX;
  for (const char* line = membership; *line;) {  // "0::/user.slice" (version 2) or "4:cpu,cpuacct:/user.slice"
    const char* const end = std::strchr(line, '\n') ? std::strchr(line, '\n') : line + std::strlen(line);
    const std::string text(line, end);
    const size_t first = text.find(':');
    const size_t second = first == std::string::npos ? first : text.find(':', first + 1);
    if (second != std::string::npos) {
      const std::string controllers = text.substr(first + 1, second - first - 1);
      const std::string group = text.substr(second + 1);
      if (controllers.empty()) {
        least = std::min(least, least_cpus(root, group, version2_cpus));
      } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
        least = std::min(least, least_cpus(root + ("/" + controllers), group, version1_cpus));
      }
    }
    line = *end ? end + 1 : end;
  }
  return least;
}

int64_t usable_cpus() {
  int64_t cpus = affinity_cpus();
#if defined(__linux__)
  try {
    cpus = std::min(cpus, cgroup_cpus("/sys/fs/cgroup", read_file("/proc/self/cgroup").c_str()));
  } catch (const std::bad_alloc&) {
    // Without memory to look, no quota is known.
  }
#endif
  return std::max<int64_t>(cpus, 1);
}

}  // namespace squeezebert
