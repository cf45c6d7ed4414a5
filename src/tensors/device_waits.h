// Watching the host side of work on a device: that nothing waits for it, and that its memory is still. For tests.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace coppice {

/// While one lives, a LibTorch operation that waits for a CUDA device throws instead, in any thread; Fetch::wait() and
/// events do not. Not nested; nothing in a build without CUDA.
class NoDeviceWaits {
 public:
  NoDeviceWaits();
  ~NoDeviceWaits();
  NoDeviceWaits(const NoDeviceWaits&) = delete;
  NoDeviceWaits& operator=(const NoDeviceWaits&) = delete;
};

/// What LibTorch's allocator has of a CUDA device; zeros in a build without CUDA.
struct DeviceMemory {
  int64_t allocated = 0, reserved = 0;  // bytes, of tensors and of all
  int64_t requests = 0;                 // calls that asked the driver for memory, so far
  bool operator==(const DeviceMemory&) const = default;
};
DeviceMemory device_memory(at::Device device);

}  // namespace coppice
