#include "src/corpus/decontaminate/csv.h"

#include <utility>

namespace coppice {

std::optional<std::vector<std::vector<std::string>>> parse_csv(std::string_view text) {
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> row;
  std::string field;
  bool quoted = false, any = false;
  const auto end_field = [&] { row.push_back(std::exchange(field, {})); };
  const auto end_row = [&] {
    if (any) end_field(), rows.push_back(std::move(row));
    row.clear();
    any = false;
  };
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      if (c != '"') {
        field += c;
      } else if (at + 1 < text.size() && text[at + 1] == '"') {
        field += text[++at];
      } else {
        quoted = false;
      }
    } else if (c == '\n') {
      end_row();
    } else if (c == '"' && field.empty()) {
      quoted = any = true;
    } else if (c == ',') {
      any = true;
      end_field();
    } else if (c != '\r' || (at + 1 < text.size() && text[at + 1] != '\n')) {
      any = true;
      field += c;
    }
  }
  if (quoted) return std::nullopt;
  end_row();
  return rows;
}

}  // namespace coppice
