#include "src/tensors/executor/fault.h"

#include "src/tensors/executor/shared_memory.h"

namespace coppice::executor {

std::string place(const Site& at) { return std::string(at.file_name()) + ":" + std::to_string(at.line()); }

Fault::Fault(const std::source_location& at, const std::string& message)
    : std::runtime_error(place(at) + ": " + message), file(at.file_name()), line(at.line()) {}

void check_launch(const Size3& grid, const Size3& block, int64_t shared_bytes, const Site& at) {
  const auto refuse = [&](const std::string& what) { throw Fault(at, "a device refuses this launch: " + what); };
  const auto text = [](const Size3& size) {
    return std::to_string(size.x) + " x " + std::to_string(size.y) + " x " + std::to_string(size.z);
  };
  const auto within = [](const Size3& size, int64_t x, int64_t yz, int64_t z) {
    return size.x >= 1 && size.y >= 1 && size.z >= 1 && size.x <= x && size.y <= yz && size.z <= z;
  };
  if (!within(grid, 2147483647, 65535, 65535))
    refuse("a grid of " + text(grid) + " blocks, at most 2147483647 x 65535 x 65535 and at least one");
  if (!within(block, kMostThreads, kMostThreads, 64) || block.x * block.y * block.z > kMostThreads)
    refuse("blocks of " + text(block) + " threads, at most 1024 and at least one");
  if (shared_bytes < 0 || shared_bytes > static_cast<int64_t>(SharedMemory::kLargest))
    refuse(std::to_string(shared_bytes) + " bytes of dynamic shared memory, at most 227 KiB");
}

}  // namespace coppice::executor
