// Every layout of control groups as a small tree of files: version 1, 2, both; nested; a container's view; what is
// missing or makes no sense.
#include "src/base/control_groups.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <string>

#include "tests/scratch_folder.h"

using namespace coppice;
namespace fs = std::filesystem;

namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();
constexpr const char* kUnified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

struct Tree {
  ScratchFolder scratch;
  void write(const std::string& path, const std::string& text) const { scratch.write(path, text); }
  /// A version 2 machine whose process is in `group`.
  void unified(const std::string& group) const {
    write("proc/self/mountinfo", std::string("23 1 8:1 / / rw - ext4 /dev/root rw\n") + kUnified);
    write("proc/self/cgroup", "0::" + group + "\n");
  }
  GroupLimits limits() const { return control_group_limits(scratch.path); }
};

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("control groups: version 2, the smallest quota on the way up") {
    const Tree tree;
    tree.unified("/pod/inner/leaf");
    CHECK(tree.limits().cpus == kNone);
    tree.write("sys/fs/cgroup/pod/inner/leaf/cpu.max", "400000 100000\n");
    CHECK(tree.limits().cpus == 4);
    tree.write("sys/fs/cgroup/pod/inner/cpu.max", "max 100000\n");
    CHECK(tree.limits().cpus == 4);
    tree.write("sys/fs/cgroup/pod/cpu.max", "75000 50000\n");
    CHECK(tree.limits().cpus == 1.5);
    tree.write("sys/fs/cgroup/pods/cpu.max", "1000 100000\n");  // another group, whose name begins alike
    CHECK(tree.limits().cpus == 1.5);
    tree.write("sys/fs/cgroup/cpu.max", "100000 100000\n");  // a container's own root
    CHECK(tree.limits().cpus == 1);
  }

  TEST_CASE("control groups: version 1, a mount for each controller") {
    const Tree tree;
    tree.write("proc/self/mountinfo",
               "41 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
               "42 30 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
               "43 30 0:32 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
    tree.write("proc/self/cgroup", "9:name=systemd:/\n4:memory:/job:7/step\n3:cpuset:/other\n2:cpu,cpuacct:/job:7\n");
    tree.write("sys/fs/cgroup/cpuset/other/cpu.cfs_quota_us", "1000");  // of another controller: not looked at
    tree.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    tree.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    CHECK(tree.limits().cpus == kNone);
    tree.write("sys/fs/cgroup/cpu,cpuacct/job:7/cpu.cfs_quota_us", "250000\n");
    tree.write("sys/fs/cgroup/cpu,cpuacct/job:7/cpu.cfs_period_us", "100000\n");
    CHECK(tree.limits().cpus == 2.5);

    const auto memory = [&](const std::string& group, const char* limit, const char* used, const char* droppable) {
      tree.write("sys/fs/cgroup/memory/" + group + "memory.limit_in_bytes", limit);
      tree.write("sys/fs/cgroup/memory/" + group + "memory.usage_in_bytes", used);
      tree.write("sys/fs/cgroup/memory/" + group + "memory.stat",
                 std::string("cache 5\ninactive_file 999\ntotal_inactive_file ") + droppable + "\n");
    };
    memory("", "9223372036854771712", "5000", "0");  // no limit
    CHECK(tree.limits().memory_bytes == kNone);
    memory("job:7/step/", "9223372036854771712", "100", "0");
    memory("job:7/", "1000", "600", "150");
    CHECK(tree.limits().memory_bytes == 550);
    memory("job:7/step/", "100", "90", "0");
    CHECK(tree.limits().memory_bytes == 10);
    memory("job:7/", "1000", "1200", "0");  // over it for a moment
    CHECK(tree.limits().memory_bytes == 0);
  }

  TEST_CASE("control groups: both versions mounted, each controller in one of them") {
    const Tree tree;
    tree.write("proc/self/mountinfo",
               "41 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
               "50 30 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    tree.write("proc/self/cgroup", "1:cpu:/a\n0::/b\n");
    tree.write("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "300000");
    tree.write("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000");
    tree.write("sys/fs/cgroup/unified/b/memory.max", "4096\n");
    tree.write("sys/fs/cgroup/unified/b/memory.current", "1096\n");
    CHECK(tree.limits().cpus == 3);
    CHECK(tree.limits().memory_bytes == 3000);
  }

  TEST_CASE("control groups: a container sees its own group as the mount's root") {
    const Tree tree;
    tree.write("proc/self/mountinfo",
               "41 30 0:30 /docker/ab12 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
               "42 30 0:30 /docker/ab12 /mnt/with\\040space ro - cgroup cgroup rw,cpu\n");
    tree.write("proc/self/cgroup", "1:cpu:/docker/ab12\n");
    tree.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000");
    tree.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
    CHECK(tree.limits().cpus == 2);
    tree.write("proc/self/cgroup", "1:cpu:/docker/ab12/job\n");
    tree.write("mnt/with space/job/cpu.cfs_quota_us", "150000");
    tree.write("mnt/with space/job/cpu.cfs_period_us", "100000");
    CHECK(tree.limits().cpus == 1.5);
    tree.write("proc/self/cgroup", "1:cpu:/docker/ab123\n");  // not inside ab12: only the mount is looked at
    CHECK(tree.limits().cpus == 2);
    tree.write("proc/self/cgroup", "1:cpu:/../../elsewhere\n");
    CHECK(tree.limits().cpus == 2);
  }

  TEST_CASE("control groups: what is missing or makes no sense is no limit") {
    const Tree tree;
    CHECK(tree.limits().cpus == kNone);  // no /proc
    CHECK(tree.limits().memory_bytes == kNone);
    tree.unified("/a");
    for (const char* text : {"", "max", "max 100000", "100000", "nonsense 100000", "100000 nonsense", "-1 100000",
                             "0 100000", "100000 0", "100000 -5", "nan 1", "\n\n"}) {
      CAPTURE(text);
      tree.write("sys/fs/cgroup/a/cpu.max", text);
      CHECK(tree.limits().cpus == kNone);
    }
    tree.write("sys/fs/cgroup/a/memory.max", "max");
    tree.write("sys/fs/cgroup/a/memory.current", "100");
    CHECK(tree.limits().memory_bytes == kNone);
    tree.write("sys/fs/cgroup/a/memory.max", "300");
    CHECK(tree.limits().memory_bytes == 200);
    fs::remove(tree.scratch.path / "sys/fs/cgroup/a/memory.current");
    CHECK(tree.limits().memory_bytes == kNone);
    tree.write("sys/fs/cgroup/a/cpu.max", "200000 100000");
    for (const char* text : {"", "0", "0::", ":::", "0:/a", "1:cpu:/a"}) {
      CAPTURE(text);
      tree.write("proc/self/cgroup", text);
      CHECK(tree.limits().cpus == kNone);
    }
    tree.unified("/a");
    for (const char* text : {"", "30 23", "30 23 0:26 / /sys/fs/cgroup rw shared:9",
                             "30 23 0:26 / /sys/fs/cgroup rw - cgroup2", "- - - - - - -"}) {
      CAPTURE(text);
      tree.write("proc/self/mountinfo", text);
      CHECK(tree.limits().cpus == (std::string(text).ends_with("cgroup2") ? 2 : kNone));
    }
  }
}
