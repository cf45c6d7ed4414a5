#include "src/text/header_lines.h"

#include <algorithm>

#include "src/text/ascii_case.h"

namespace coppice {

HeaderLines::HeaderLines(std::string_view head) {
  while (!head.empty()) {
    size_t end = head.find('\n');
    while (end != std::string_view::npos && end + 1 < head.size() && (head[end + 1] == ' ' || head[end + 1] == '\t'))
      end = head.find('\n', end + 1);
    const std::string_view line = head.substr(0, end);
    const size_t colon = line.find(':');
    if (colon != std::string_view::npos && colon < line.find('\n'))
      lines_.emplace_back(trimmed_ascii(line.substr(0, colon)), trimmed_ascii(line.substr(colon + 1)));
    head.remove_prefix(end == std::string_view::npos ? head.size() : end + 1);
  }
}

std::string_view HeaderLines::find(std::string_view name) const {
  const auto found =
      std::ranges::find_if(lines_, [&](const auto& line) { return equals_ignoring_case(line.first, name); });
  return found == lines_.end() ? std::string_view() : found->second;
}

std::string HeaderLines::join(std::string_view name) const {
  std::string all;
  for (const auto& [key, value] : lines_)
    if (equals_ignoring_case(key, name)) all.append(all.empty() ? "" : "; ").append(value);
  return all;
}

}  // namespace coppice
