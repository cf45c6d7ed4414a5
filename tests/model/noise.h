// Weights for tests of a step: every gradient is of a size that shows a slip.
#pragma once

#include <ATen/ATen.h>

#include <cmath>

#include "src/tensors/arena.h"
#include "tests/tensors/compare.h"

namespace coppice {

/// Vectors about 1, matrices that keep the size of what goes through them.
inline void fill_with_noise(ParameterArena& arena) {
  const MasterEditor master = arena.edit_master();
  uint64_t seed = 100;
  for (const ArenaEntry& entry : arena.layout().entries) {
    const at::Tensor noise = randn(entry.shape, seed++);
    master[entry.name].copy_(entry.is_vector() ? 1 + 0.1 * noise
                                               : noise / std::sqrt(static_cast<double>(entry.shape[1])));
  }
}

}  // namespace coppice
