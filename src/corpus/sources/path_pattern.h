// Patterns of paths: * and ? within a name, ** over folders.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

bool is_pattern(std::string_view path);
/// The part of a pattern's path that has no signs of one, and what is to match below it.
struct SplitPattern {
  std::filesystem::path folder;
  std::vector<std::string> names;  // `**` stands alone
};
SplitPattern split_pattern(std::string_view pattern);
/// In time that grows with the product of both lengths. A name that begins with a dot is matched by such a pattern
/// alone, and never by `**`.
bool matches_pattern(const std::vector<std::string>& pattern, const std::vector<std::string>& names);

}  // namespace coppice
