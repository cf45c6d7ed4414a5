#include "src/tensors/device_waits.h"

#ifdef COPPICE_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#endif

namespace coppice {

#ifdef COPPICE_CUDA

NoDeviceWaits::NoDeviceWaits() { c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_ERROR); }
NoDeviceWaits::~NoDeviceWaits() {
  c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_DISABLED);
}

DeviceMemory device_memory(at::Device device) {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return {.allocated = stats.allocated_bytes[kAll].current,
          .reserved = stats.reserved_bytes[kAll].current,
          .requests = stats.num_device_alloc};
}

#else

NoDeviceWaits::NoDeviceWaits() = default;
NoDeviceWaits::~NoDeviceWaits() = default;

DeviceMemory device_memory(at::Device) { return {}; }

#endif

}  // namespace coppice
