#include "src/corpus/report/html_table.h"

#include <fmt/format.h>

#include "src/base/svg.h"

namespace coppice {

std::string html_table(const std::vector<std::string>& header, const HtmlRows& rows, size_t left,
                       std::string_view note) {
  const auto line = [&](const std::vector<std::string>& cells, std::string_view tag) {
    std::string html = "<tr>";
    for (size_t i = 0; i < cells.size(); ++i)
      html += fmt::format("<{0}{1}>{2}</{0}>", tag, i < left ? " class=\"t\"" : "", escape_xml(cells[i]));
    return html + "</tr>\n";
  };
  std::string html = "<div class=\"scroll\"><table>\n<thead>" + line(header, "th") + "</thead>\n<tbody>\n";
  for (const auto& row : rows) html += line(row, "td");
  html += "</tbody></table></div>\n";
  return note.empty() ? html : html + fmt::format("<p class=\"note\">{}</p>\n", escape_xml(note));
}

}  // namespace coppice
