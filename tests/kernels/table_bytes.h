// Whether a kernel moves the bytes that the table of costs has for it. Torch-free.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <string>

#include "src/tensors/executor/executor.h"
#include "src/tensors/kernels/kernel_costs.h"

namespace coppice {

/// The most that a block holds of its rows of logits.
inline constexpr int64_t kHeldBytes = 224 * 1024;

template <class Run>
void check_table_bytes(Kernel kernel, const KernelShape& shape, const Run& run) {
  CAPTURE(std::string(cost_of(kernel).name));
  executor::reset_counts();
  run();
  const KernelBytes bytes = cost_of(kernel).bytes(shape);
  CHECK(executor::counts().bytes_loaded == bytes.loaded);
  CHECK(executor::counts().bytes_stored == bytes.stored);
}

}  // namespace coppice
