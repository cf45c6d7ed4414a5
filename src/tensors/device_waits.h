// Watching the host side of work on a device: that nothing waits for it. For tests.
#pragma once

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

}  // namespace coppice
