// What a run records of the program and of the machine it runs on.
#include "recipes/folder/machine.h"

#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "recipes/folder/devices.h"
#include "recipes/folder/version.h"
#include "src/base/control_groups.h"
#include "src/base/log.h"
#include "src/base/threads.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "cpu";
}

/// Of the best of eight turns of so many products of `size` cubed.
double measure_gflops(const Placement& on, int64_t size, int calls) {
  const auto options = at::TensorOptions().device(on.device).dtype(on.compute);
  const at::Tensor a = at::randn({size, size}, options), b = at::randn({size, size}, options);
  at::Tensor c = at::empty_like(a);
  double best_s = 1e9;
  for (int turn = 0; turn < 8; ++turn) {
    const double begin_s = monotonic_s();
    for (int call = 0; call < calls; ++call) at::mm_out(c, a, b);
    if (!on.device.is_cpu()) (void)c[0].to(at::kCPU);  // waits
    best_s = std::min(best_s, monotonic_s() - begin_s);
  }
  return 2.0 * calls * std::pow(static_cast<double>(size), 3) / best_s / 1e9;
}

}  // namespace

double available_memory() {
  double bytes = 1024 * value_in("/proc/meminfo", "MemAvailable:");
  if (std::isnan(bytes))
    bytes = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  rlimit space{};
  if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY) {
    const double used = 1024 * value_in("/proc/self/status", "VmSize:");
    bytes = std::min(bytes, static_cast<double>(space.rlim_cur) - (std::isnan(used) ? 0 : used));
  }
  return std::max(0.0, std::min(bytes, control_group_limits().memory_bytes));
}

double take_peak_memory() {
  const double bytes = 1024 * value_in("/proc/self/status", "VmHWM:");
  std::ofstream("/proc/self/clear_refs") << "5";  // resets the mark to what is resident now
  return bytes;
}

double gemm_gflops(const Placement& on) {
  static std::map<std::string, double> rates;
  const bool cpu = on.device.is_cpu();
  const std::string where = cpu ? "cpu" : device_name(on.device) + " " + dtype_name(on.compute);
  if (const auto known = rates.find(where); known != rates.end()) return known->second;
  const double rate = cpu ? measure_gflops({}, 768, 1) : measure_gflops(on, 8192, 4);
  if (!cpu) release_card_memory();  // what is planned for has no room for these matrices
  rates.emplace(where, rate);
  return rate;
}

double peak_gflops(const Placement& on) {
  const DeviceRow* const row = on.device.is_cuda() && on.compute == at::kBFloat16
                                   ? find_row_of_device(describe_cuda_device(on.device).name)
                                   : nullptr;
  return row == nullptr ? gemm_gflops(on) : row->dense_flops / 1e9;
}

Json versions_json() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return {{"coppice", kVersion},
          {"git", git_commit()},
          {"build", kBuildType},
          {"torch", kTorchVersion},
          {"hdf5", fmt::format("{}.{}.{}", major, minor, release)},
          {"compiler", kCompiler}};
}

void log_threads(int recipe_threads, int threads, int processes) {
  const Processors processors = find_processors();
  log_info(threads_text(recipe_threads, threads, processes, processors));
  if (const std::string warning = threads_warning(threads, processes, processors); !warning.empty())
    log_warning(warning);
}

Json host_json() {
  return {{"cpu", cpu_name()},
          {"cpu_capability", at::get_cpu_capability()},
          {"threads", num_threads()},
          {"deterministic", true}};
}

Json machine_json() {
  Json machine = host_json();
  machine["gemm_gflops"] = std::round(gemm_gflops());
  return machine;
}

}  // namespace coppice
