// removed/<step>/<file>.jsonl.zst, line by line.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

namespace coppice {

struct RemovalLine {
  std::string id, source, rule;
  std::optional<double> value, threshold, similarity;
  std::optional<std::string> kept_id, text;
};

/// Calls `take` for every line; a file that is not there has none. UserError::bad_file naming the line.
void read_removals(const std::filesystem::path& path, const std::function<void(RemovalLine&&)>& take);

}  // namespace coppice
