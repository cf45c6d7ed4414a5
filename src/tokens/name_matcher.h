// Finds names of a list in a text, from the left, the longest of those that begin at one place. Private to src/tokens.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace coppice {

class NameMatcher {
 public:
  struct Match {
    size_t begin = 0, end = 0;
    int64_t id = -1;  // below 0: none
  };

  NameMatcher() = default;
  explicit NameMatcher(std::vector<std::pair<std::string, int64_t>> names) : names_(std::move(names)) {
    std::erase_if(names_, [](const auto& name) { return name.first.empty(); });
    std::ranges::sort(names_);
    const auto same =
        std::ranges::unique(names_, {}, [](const auto& name) -> const std::string& { return name.first; });
    names_.erase(same.begin(), same.end());
    for (const auto& [name, id] : names_) begins_[static_cast<unsigned char>(name[0])] = true;
  }
  bool empty() const { return names_.empty(); }

  /// The first match that begins at `from` or behind it.
  Match find(std::string_view text, size_t from) const {
    for (size_t begin = from; begin < text.size(); ++begin) {
      if (!begins_[static_cast<unsigned char>(text[begin])]) continue;
      if (const Match match = longest_at(text, begin); match.id >= 0) return match;
    }
    return {};
  }

 private:
  /// Narrows the names that agree with the text byte by byte: they are sorted.
  Match longest_at(std::string_view text, size_t begin) const {
    Match match;
    auto low = names_.begin(), high = names_.end();
    for (size_t depth = 0; low != high; ++depth) {
      if (low->first.size() == depth) {
        match = {.begin = begin, .end = begin + depth, .id = low->second};
        ++low;
      }
      if (begin + depth == text.size()) break;
      const auto byte = static_cast<unsigned char>(text[begin + depth]);
      const auto at = [depth](const auto& name) { return static_cast<unsigned char>(name.first[depth]); };
      low = std::partition_point(low, high, [&](const auto& name) { return at(name) < byte; });
      high = std::partition_point(low, high, [&](const auto& name) { return at(name) == byte; });
    }
    return match;
  }

  std::vector<std::pair<std::string, int64_t>> names_;
  std::array<bool, 256> begins_{};
};

}  // namespace coppice
