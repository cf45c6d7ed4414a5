#include "src/corpus/report/removal_lines.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "src/corpus/report/own_lines.h"

namespace coppice {

void read_removals(const std::filesystem::path& path, const std::function<void(RemovalLine&&)>& take) {
  if (!std::filesystem::exists(path)) return;
  for_each_own_line(path, [&](std::string_view line, uint64_t line_number) {
    const std::string where = fmt::format("{}:{}", path.native(), line_number);
    const Json json = parse_json(line, where);
    const auto number = [&](const char* key) {
      return json.contains(key) ? std::optional(number_at(json, key, where)) : std::nullopt;
    };
    const auto text = [&](const char* key) {
      return json.contains(key) ? std::optional(string_at(json, key, where)) : std::nullopt;
    };
    take({.id = string_at(json, "id", where),
          .source = string_at(json, "source", where),
          .rule = string_at(json, "rule", where),
          .value = number("value"),
          .threshold = number("threshold"),
          .similarity = number("similarity"),
          .kept_id = text("kept_id"),
          .text = text("text")});
  });
}

}  // namespace coppice
