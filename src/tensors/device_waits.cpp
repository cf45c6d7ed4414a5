#include "src/tensors/device_waits.h"

#ifdef COPPICE_CUDA
#include <c10/cuda/CUDAFunctions.h>
#endif

namespace coppice {

#ifdef COPPICE_CUDA

NoDeviceWaits::NoDeviceWaits() { c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_ERROR); }
NoDeviceWaits::~NoDeviceWaits() {
  c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_DISABLED);
}

#else

NoDeviceWaits::NoDeviceWaits() = default;
NoDeviceWaits::~NoDeviceWaits() = default;

#endif

}  // namespace coppice
