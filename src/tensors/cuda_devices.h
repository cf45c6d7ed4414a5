// What this machine has to compute on beside its CPU. device.h knows what the build can do; this asks the CUDA driver,
// and only where somebody wants to compute there: it takes a while, memory on the device, and the right to fork.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace coppice {

/// CUDA devices that this process can use; 0 in a build without CUDA, without a driver, and where CUDA_VISIBLE_DEVICES
/// hides them all.
int num_cuda_devices();
/// Why nothing can be computed on `device`, by build or machine: "this machine has no NVIDIA driver"; empty when it
/// can.
std::string why_not_here(at::Device device);

/// A CUDA device as its driver describes it.
struct CudaDevice {
  std::string name;  // "NVIDIA H200"
  double bytes = 0;  // of its memory, whoever has it
};
/// Of one that is here; otherwise DeviceError::unavailable.
CudaDevice describe_cuda_device(at::Device device);

/// In no child of a process that has asked the driver does CUDA work. Who forks children that compute says so first,
/// and a question of its own is an InternalError from then on; those of its children are not.
void leave_cuda_to_children();

}  // namespace coppice
