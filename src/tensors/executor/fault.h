// What is said of a fault, and the launches that every device refuses.
#pragma once

#include <cstdint>
#include <string>

#include "src/tensors/executor/block.h"
#include "src/tensors/executor/executor.h"

namespace coppice::executor {

inline constexpr int kMostThreads = 1024;  // of a block

/// "file:line".
std::string place(const Site& at);

/// Throws Fault for a grid, a block or an amount of dynamic shared memory beyond the limits of compute capability 9.0
/// (CUDA C++ Programming Guide, technical specifications per compute capability).
void check_launch(const Size3& grid, const Size3& block, int64_t shared_bytes, const Site& at);

}  // namespace coppice::executor
