#include "src/tensors/launch_times.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <mutex>
#include <utility>

#include "src/base/errors.h"
#include "src/tensors/kernels/launch.h"
#ifdef COPPICE_CUDA
#include <cuda_runtime_api.h>
#endif

namespace coppice {

namespace launch_timing {

std::atomic<bool> is_wanted{false};

struct Launch {
  std::string_view kernel;
  std::chrono::steady_clock::time_point began;  // on the host
  double seconds = 0;
#ifdef COPPICE_CUDA
  cudaEvent_t before = nullptr, after = nullptr;  // null: on the host
  cudaError_t error = cudaSuccess;                // the first of its events' that is none
#endif
};

namespace {

std::mutex mutex;          // backward launches in a thread of its own
std::deque<Launch> noted;  // places stay where they are

Launch* note(const char* kernel) {
  const std::lock_guard lock(mutex);
  return &noted.emplace_back(Launch{.kernel = kernel, .began = {}});
}

std::deque<Launch> take_noted() {
  const std::lock_guard lock(mutex);
  return std::exchange(noted, {});
}

#ifdef COPPICE_CUDA
void keep_first(cudaError_t& error, cudaError_t next) {
  if (error == cudaSuccess) error = next;
}

/// Reads the events, which waits for the second, and gives them back.
void finish(Launch& launch) {
  if (launch.before == nullptr) return;
  float milliseconds = 0;
  if (launch.error == cudaSuccess) launch.error = cudaEventSynchronize(launch.after);
  if (launch.error == cudaSuccess) launch.error = cudaEventElapsedTime(&milliseconds, launch.before, launch.after);
  launch.seconds = 1e-3 * milliseconds;
}

void destroy_events(Launch& launch) {
  for (cudaEvent_t* event : {&launch.before, &launch.after})
    if (cudaEvent_t gone = std::exchange(*event, nullptr); gone != nullptr) (void)cudaEventDestroy(gone);
}
#endif

}  // namespace

Launch* begin_on_host(const char* kernel) {
  Launch* const launch = note(kernel);
  launch->began = std::chrono::steady_clock::now();
  return launch;
}

void end_on_host(Launch* launch) noexcept {
  launch->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - launch->began).count();
}

#ifdef COPPICE_CUDA
Launch* begin_on_device(const char* kernel, CUstream_st* stream) {
  Launch* const launch = note(kernel);
  launch->error =
      cudaEventCreate(&launch->before);  // both before the first is recorded: making one takes the host time
  keep_first(launch->error, cudaEventCreate(&launch->after));
  if (launch->error == cudaSuccess) launch->error = cudaEventRecord(launch->before, stream);
  return launch;
}

void end_on_device(Launch* launch, CUstream_st* stream) noexcept {
  if (launch->error == cudaSuccess) launch->error = cudaEventRecord(launch->after, stream);
}
#endif

}  // namespace launch_timing

LaunchTimes::LaunchTimes() {
  COPPICE_CHECK(!launch_timing::is_wanted.exchange(true), "launches are being timed already");
}

LaunchTimes::~LaunchTimes() {
  launch_timing::is_wanted = false;
  [[maybe_unused]] std::deque<launch_timing::Launch> left = launch_timing::take_noted();
#ifdef COPPICE_CUDA
  for (launch_timing::Launch& launch : left) launch_timing::destroy_events(launch);
#endif
}

std::vector<LaunchTime> LaunchTimes::take() {
  std::deque<launch_timing::Launch> launches = launch_timing::take_noted();
#ifdef COPPICE_CUDA
  for (launch_timing::Launch& launch : launches) {
    launch_timing::finish(launch);
    launch_timing::destroy_events(launch);
  }
  for (const launch_timing::Launch& launch : launches) check_launch(launch.error, launch.kernel);
#endif
  std::vector<LaunchTime> times;
  for (const launch_timing::Launch& launch : launches) times.push_back({launch.kernel, launch.seconds});
  return times;
}

std::vector<KernelTime> sums_by_kernel(std::span<const LaunchTime> launches) {
  std::vector<KernelTime> sums;
  for (const LaunchTime& launch : launches) {
    auto found = std::ranges::find(sums, launch.kernel, &KernelTime::kernel);
    if (found == sums.end()) found = sums.insert(sums.end(), {.kernel = launch.kernel});
    ++found->launches;
    found->seconds += launch.seconds;
  }
  return sums;
}

}  // namespace coppice
