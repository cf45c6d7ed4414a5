// Limits that Linux control groups put on this process: a container's CPU quota and memory.
#pragma once

#include <filesystem>
#include <limits>
#include <string_view>

namespace coppice {

struct GroupLimits {
  double cpus = std::numeric_limits<double>::infinity();  // CPU seconds a second
  double memory_bytes =
      std::numeric_limits<double>::infinity();  // still to be taken; file pages that can be dropped count as free
};

/// The smallest limits of this process' groups and of all groups above them; infinity where there is none. `root`
/// stands for / in tests.
GroupLimits control_group_limits(const std::filesystem::path& root = "/");

/// The value of `key` in a file of "key value [unit]" lines; NaN when there is none.
double value_in(const std::filesystem::path& path, std::string_view key);

}  // namespace coppice
