// What a run records of the program and of the machine it runs on.
#include "recipes/machine.h"

#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "recipes/version.h"
#include "src/base/log.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "cpu";
}

/// The value of `key` in a file of "key value [unit]" lines; NaN when there is none.
double value_in(const std::filesystem::path& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) return std::strtod(line.c_str() + key.size(), nullptr);
  return std::nan("");
}

double number_in(const std::filesystem::path& path) {
  double value = std::nan("");
  std::ifstream(path) >> value;  // "max" is no number: no limit
  return value;
}

/// What the control groups of this process leave it; infinity without a limit. File pages that can be dropped count as free.
double left_by_control_groups() {
  double left = std::numeric_limits<double>::infinity();
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::/")) continue;
    const std::filesystem::path mount = "/sys/fs/cgroup";
    for (std::filesystem::path group = line.substr(4);; group = group.parent_path()) {
      const double used = number_in(mount / group / "memory.current") - value_in(mount / group / "memory.stat", "inactive_file ");
      if (const double limit = number_in(mount / group / "memory.max"); std::isfinite(limit) && std::isfinite(used)) left = std::min(left, limit - used);
      if (group.empty()) break;
    }
  }
  return left;
}

}  // namespace

double available_memory() {
  double bytes = 1024 * value_in("/proc/meminfo", "MemAvailable:");
  if (std::isnan(bytes)) bytes = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  rlimit space{};
  if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY) {
    const double used = 1024 * value_in("/proc/self/status", "VmSize:");
    bytes = std::min(bytes, static_cast<double>(space.rlim_cur) - (std::isnan(used) ? 0 : used));
  }
  return std::max(0.0, std::min(bytes, left_by_control_groups()));
}

double take_peak_memory() {
  const double bytes = 1024 * value_in("/proc/self/status", "VmHWM:");
  std::ofstream("/proc/self/clear_refs") << "5";  // resets the mark to what is resident now
  return bytes;
}

double gemm_gflops() {
  static const double rate = [] {
    const at::Tensor a = at::randn({768, 768}), b = at::randn({768, 768});
    double best_s = 1e9;
    for (int turn = 0; turn < 8; ++turn) {
      const double begin_s = monotonic_s();
      const at::Tensor c = a.mm(b);
      best_s = std::min(best_s, monotonic_s() - begin_s);
    }
    return 2.0 * 768 * 768 * 768 / best_s / 1e9;
  }();
  return rate;
}

Json versions_json() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return {
      {"coppice", kVersion},  {"git", git_commit()}, {"build", kBuildType}, {"torch", kTorchVersion}, {"hdf5", fmt::format("{}.{}.{}", major, minor, release)},
      {"compiler", kCompiler}};
}

Json machine_json() {
  return {{"device", "cpu"},          {"cpu", cpu_name()},     {"cpu_capability", at::get_cpu_capability()},
          {"threads", num_threads()}, {"deterministic", true}, {"gemm_gflops", std::round(gemm_gflops())}};
}

}  // namespace coppice
