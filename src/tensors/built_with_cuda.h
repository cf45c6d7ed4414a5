// Whether this build has CUDA kernels, for coppice_ops alone: COPPICE_CUDA is defined there and nowhere else, so that
// all other objects are the same in both builds. They ask built_with_cuda() (device.h).
#pragma once

namespace coppice {

#ifdef COPPICE_CUDA
inline constexpr bool kBuiltWithCuda = true;
#else
inline constexpr bool kBuiltWithCuda = false;
#endif

}  // namespace coppice
