// The target that does not count. Torch-free: kernels, batches and label look-ups mean the same number.
#pragma once

#include <cstdint>

namespace coppice {

inline constexpr int64_t kIgnoredLabel = -100;

}  // namespace coppice
