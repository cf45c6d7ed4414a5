#include "src/tensors/cuda_devices.h"

#include <fmt/format.h>
#include <unistd.h>

#include "src/base/errors.h"
#include "src/tensors/device.h"
#ifdef COPPICE_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#endif

namespace coppice {
namespace {

pid_t forking_process = 0;

struct Found {
  int devices = 0;
  std::string why;  // there are none
};

Found ask_driver() {
  COPPICE_CHECK(getpid() != forking_process, "CUDA devices: a process that forks children that compute must not ask");
#ifdef COPPICE_CUDA
  int devices = 0, driver = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaSuccess && devices > 0) return {.devices = devices, .why = ""};
  (void)cudaGetLastError();  // or the next launch is blamed for it
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return {.why = "this machine has no NVIDIA driver"};
  const auto version = [](int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); };
  if (error == cudaErrorInsufficientDriver)
    return {.why = fmt::format("the NVIDIA driver is for CUDA {}, this build for CUDA {}", version(driver),
                               version(CUDART_VERSION))};
  if (error == cudaSuccess || error == cudaErrorNoDevice) return {.why = "the NVIDIA driver finds no device"};
  return {.why = fmt::format("the NVIDIA driver finds no device: {}", cudaGetErrorString(error))};
#else
  return {.why = std::string(why_unavailable(at::kCUDA))};
#endif
}

}  // namespace

int num_cuda_devices() { return ask_driver().devices; }

std::string why_not_here(at::Device device) {
  if (!device.is_cuda()) return std::string(why_unavailable(device));
  const Found found = ask_driver();
  if (device.index() < found.devices || found.devices == 0) return found.why;
  return fmt::format("this machine has {} CUDA device{}, the last is cuda:{}", found.devices,
                     found.devices == 1 ? "" : "s", found.devices - 1);
}

#ifdef COPPICE_CUDA
namespace {

void check_call(cudaError_t error, const char* what) {
  if (error == cudaErrorMemoryAllocation)
    throw DeviceError::out_of_memory(fmt::format("{}: {}", what, cudaGetErrorString(error)));
  if (error != cudaSuccess)
    throw DeviceError(ExitCode::internal, fmt::format("{}: {}", what, cudaGetErrorString(error)));
}

}  // namespace

CardMemory card_memory(at::Device device) {
  const c10::cuda::CUDAGuard on_device(device);  // the driver answers for the current one
  size_t free = 0, total = 0;
  check_call(cudaMemGetInfo(&free, &total), "memory of the device");
  const c10::CachingDeviceAllocator::DeviceStats stats =
      c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return {.peak_allocated = static_cast<double>(stats.allocated_bytes[kAll].peak),
          .peak_held = static_cast<double>(stats.reserved_bytes[kAll].peak),
          .in_use = static_cast<double>(total - free),
          .allocations = stats.num_device_alloc,
          .segments = stats.segment[kAll].current};
}

void start_card_peak(at::Device device) { c10::cuda::CUDACachingAllocator::resetPeakStats(device.index()); }
void release_card_memory() { c10::cuda::CUDACachingAllocator::emptyCache(); }
#else
CardMemory card_memory(at::Device device) { throw DeviceError::unavailable(why_not_here(device)); }
void start_card_peak(at::Device device) { throw DeviceError::unavailable(why_not_here(device)); }
void release_card_memory() {}
#endif

CudaDevice describe_cuda_device(at::Device device) {
  if (const std::string why = why_not_here(device); !why.empty()) throw DeviceError::unavailable(why);
#ifdef COPPICE_CUDA
  cudaDeviceProp properties{};
  const cudaError_t error = cudaGetDeviceProperties(&properties, device.index());
  if (error != cudaSuccess)
    throw DeviceError::unavailable(fmt::format("{}: {}", device_name(device), cudaGetErrorString(error)));
  return {.name = properties.name, .bytes = static_cast<double>(properties.totalGlobalMem)};
#else
  throw DeviceError::unavailable(fmt::format("{} is no CUDA device", device_name(device)));
#endif
}

double free_device_memory(at::Device device) {
  if (const std::string why = why_not_here(device); !device.is_cuda() || !why.empty())
    throw DeviceError::unavailable(
        fmt::format("memory of {}: {}", device_name(device), why.empty() ? "no device with a memory of its own" : why));
  size_t free_bytes = 0;
#ifdef COPPICE_CUDA
  const c10::DeviceGuard on_device(device);
  c10::cuda::CUDACachingAllocator::emptyCache();
  size_t all_bytes = 0;
  if (const cudaError_t error = cudaMemGetInfo(&free_bytes, &all_bytes); error != cudaSuccess)
    throw DeviceError::unavailable(fmt::format("memory of {}: {}", device_name(device), cudaGetErrorString(error)));
#endif
  return static_cast<double>(free_bytes);
}

void leave_cuda_to_children() { forking_process = getpid(); }

}  // namespace coppice
