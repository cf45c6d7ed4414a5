#include "src/corpus/report/text_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"

namespace coppice {

std::string text_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows,
                       size_t left) {
  std::vector<std::vector<std::string>> lines = {header};
  lines.insert(lines.end(), rows.begin(), rows.end());
  const auto columns_of = [](const std::string& cell) {  // one a code point
    return static_cast<size_t>(std::ranges::count_if(cell, [](unsigned char byte) { return (byte & 0xC0) != 0x80; }));
  };
  std::vector<size_t> widths(header.size());
  for (std::vector<std::string>& line : lines)
    for (size_t i = 0; i < line.size(); ++i) {
      line[i] = printable(line[i]);
      widths[i] = std::max(widths[i], columns_of(line[i]));
    }
  std::string text;
  for (const std::vector<std::string>& line : lines) {
    std::string row;
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string blanks(widths[i] - columns_of(line[i]), ' ');
      row += (i > 0 ? "  " : "") + (i < left ? line[i] + blanks : blanks + line[i]);
    }
    row.erase(row.find_last_not_of(' ') + 1);
    text += row + "\n";
  }
  return text;
}

std::string percent_text(uint64_t part, uint64_t whole) {
  return whole == 0 ? "-" : fmt::format("{:.2f}%", 100 * static_cast<double>(part) / static_cast<double>(whole));
}

}  // namespace coppice
