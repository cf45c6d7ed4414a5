// Waiting for a label stage that another process is at.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <thread>

namespace coppice::test {

inline int64_t count_shards(const std::filesystem::path& labels) {
  int64_t count = 0;
  if (std::filesystem::exists(labels))
    for (const auto& entry : std::filesystem::recursive_directory_iterator(labels))
      count += entry.path().filename().string().starts_with("shard-") && entry.path().extension() == ".h5";
  return count;
}

/// Until `done` says so; a minute at most, then the test goes on and fails.
inline void wait_for(const std::function<bool()>& done) {
  for (int i = 0; i < 6000 && !done(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

}  // namespace coppice::test
