#include "src/tensors/cuda_devices.h"

#include <fmt/format.h>
#include <unistd.h>

#include "src/base/errors.h"
#include "src/tensors/device.h"
#ifdef COPPICE_CUDA
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

int64_t memory_of(at::Device device) {
  if (const std::string why = why_not_here(device); !why.empty()) throw DeviceError::unavailable(why);
#ifdef COPPICE_CUDA
  cudaDeviceProp found;
  COPPICE_CHECK(device.is_cuda() && cudaGetDeviceProperties(&found, device.index()) == cudaSuccess,
                "properties of a device that is here");
  return static_cast<int64_t>(found.totalGlobalMem);
#else
  return 0;
#endif
}

void leave_cuda_to_children() { forking_process = getpid(); }

}  // namespace coppice
