// How many workers make sense: no more than affinity and cgroups allow.
#include "engine/cpus.cc"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <initializer_list>

#include "support.h"

namespace {

// A folder of cgroups, made for one test.
class Cgroups {
 public:
  Cgroups() { CHECK(mkdtemp(root_) != nullptr); }
  ~Cgroups() {
    for (auto file = files_.rbegin(); file != files_.rend(); ++file) remove(file->c_str());
    remove(root_);
  }

  // Writes a file, in folders that are made with it.
  void write(const std::string& path, const char* text) {
    for (size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
      const std::string folder = root_ + path.substr(0, slash);
      if (mkdir(folder.c_str(), 0700) == 0) files_.push_back(folder);
    }
    files_.push_back(root_ + path);
    FILE* const file = fopen(files_.back().c_str(), "w");
    CHECK(file != nullptr && fputs(text, file) >= 0 && fclose(file) == 0);
  }
  int64_t cpus(const char* membership) const { return squeezebert::cgroup_cpus(root_, membership); }

 private:
  char root_[32] = "/tmp/squeezebert-XXXXXX";
  std::vector<std::string> files_;
};

void test_version2() {
  Cgroups groups;
  CHECK(groups.cpus("0::/a/b\n") == INT64_MAX);  // no such files
  groups.write("/a/cpu.max", "max 100000\n");
  CHECK(groups.cpus("0::/a/b\n") == INT64_MAX);
  groups.write("/a/b/cpu.max", "150000 100000\n");
  CHECK(groups.cpus("0::/a/b\n") == 2 && groups.cpus("0::/a\n") == INT64_MAX);
  CHECK(groups.cpus("0::/a/b/c/d\n") == 2);  // the group above
  groups.write("/a/cpu.max", "50000 100000\n");
  CHECK(groups.cpus("0::/a/b\n") == 1 && groups.cpus("0::/a") == 1 && groups.cpus("0::/") == INT64_MAX);
  groups.write("/cpu.max", "400000 100000\n");  // a container's own group is the root that it sees
  CHECK(groups.cpus("0::/") == 4 && groups.cpus("0::/somewhere/else\n") == 4);
}

void test_version1() {
  Cgroups groups;
  groups.write("/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n");
  groups.write("/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  const char* const lines = "12:cpuset:/b\n4:cpu,cpuacct:/a\n1:name=systemd:/init.scope\n0::/init.scope\n";
  CHECK(groups.cpus(lines) == INT64_MAX);
  groups.write("/cpu,cpuacct/a/cpu.cfs_quota_us", "200001\n");
  CHECK(groups.cpus(lines) == 3);
  groups.write("/cpu,cpuacct/cpu.cfs_quota_us", "100000\n");
  groups.write("/cpu,cpuacct/cpu.cfs_period_us", "50000\n");
  CHECK(groups.cpus(lines) == 2);
  groups.write("/cpuset/b/cpu.cfs_quota_us", "1\n");  // not this controller's
  CHECK(groups.cpus(lines) == 2);
}

void test_nonsense() {
  Cgroups groups;
  groups.write("/cpu.max", "0 0\n");
  for (const char* lines : {"", "\n", ":", "::", "0:", "0::", "0::/\n\n", "4:cpu", "x:cpu:y"}) {
    CHECK(groups.cpus(lines) == INT64_MAX);
  }
  groups.write("/cpu.max", "9223372036854775807 1\n");
  CHECK(groups.cpus("0::/") == INT64_MAX);
  groups.write("/cpu.max", "100000");
  CHECK(groups.cpus("0::/") == INT64_MAX);
}

void test_here() {
  const int32_t all = squeezebert_default_workers();
  CHECK(all >= 1 && all <= SQUEEZEBERT_MAX_WORKERS && squeezebert::usable_cpus() >= all);
#if defined(__linux__)
  cpu_set_t before, one;
  CPU_ZERO(&one);
  if (sched_getaffinity(0, sizeof before, &before) != 0) return;  // of a machine with more CPUs than such a set has
  CHECK(all <= CPU_COUNT(&before));
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_SET(first, &one);
  CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(squeezebert_default_workers() == 1);
  CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
  CHECK(squeezebert_default_workers() == all);
#endif
}

}  // namespace

int main() {
  test_version2();
  test_version1();
  test_nonsense();
  test_here();
  return check_result();
}
