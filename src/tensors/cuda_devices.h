// What this machine has to compute on beside its CPU. device.h knows what the build can do; this asks the CUDA driver,
// and only where somebody wants to compute there: it takes a while, memory on the device, and the right to fork.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
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

/// What this process has of a CUDA device's memory; bytes, and counts since the process began.
struct CardMemory {
  double peak_allocated = 0;  // of tensors, since start_card_peak()
  double peak_held = 0;       // by torch's allocator, what is free of it included
  double in_use = 0;          // of the whole card now, by all processes, context and libraries included
  int64_t allocations = 0;    // that torch's allocator has asked the driver for
  int64_t segments = 0;       // that it holds now
};
/// Of a device on which there has been a tensor.
CardMemory card_memory(at::Device device);
/// The peaks begin at what is allocated now.
void start_card_peak(at::Device device);
/// Gives what is free back to the driver.
void release_card_memory();
/// Bytes that this process can still take on a CUDA device, those that its own allocator holds in reserve among them,
/// which go back to the driver. DeviceError where there is no such device.
double free_device_memory(at::Device device);

/// In no child of a process that has asked the driver does CUDA work. Who forks children that compute says so first,
/// and a question of its own is an InternalError from then on; those of its children are not.
void leave_cuda_to_children();

}  // namespace coppice
