// How long each launch of our kernels takes: on a device between two events of its stream, in the rehearsal by the
// host's clock. What is torch's own (products, attention) and the CPU's loops are not launches.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace coppice {

struct LaunchTime {
  std::string_view kernel;  // as its launcher is called
  double seconds = 0;       // a second launch that the launcher makes included
};

/// While one lives, launches are timed, in all threads; nothing waits for them before take(). Not nested.
class LaunchTimes {
 public:
  LaunchTimes();
  ~LaunchTimes();
  LaunchTimes(const LaunchTimes&) = delete;
  LaunchTimes& operator=(const LaunchTimes&) = delete;

  /// Those since the last call, in their order, once the devices are done with them; while nothing is being launched.
  /// DeviceError where an event failed.
  std::vector<LaunchTime> take();
};

struct KernelTime {
  std::string_view kernel;
  int64_t launches = 0;
  double seconds = 0;  // of all of them
};
/// Sums by kernel, in the order of their first launches.
std::vector<KernelTime> sums_by_kernel(std::span<const LaunchTime> launches);

}  // namespace coppice
