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
/// Bytes of memory of a CUDA device that is here, whoever holds them.
int64_t memory_of(at::Device device);

/// In no child of a process that has asked the driver does CUDA work. Who forks children that compute says so first,
/// and a question of its own is an InternalError from then on; those of its children are not.
void leave_cuda_to_children();

}  // namespace coppice
