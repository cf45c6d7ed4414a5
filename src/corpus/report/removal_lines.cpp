#include "src/corpus/report/removal_lines.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "src/text/byte_source.h"
#include "src/text/documents.h"

namespace coppice {

void read_removals(const std::filesystem::path& path, const std::function<void(RemovalLine&&)>& take) {
  if (!std::filesystem::exists(path)) return;
  LineReader lines(path, ByteSource::Coding::zstd, 8 * kMaxDocumentBytes);  // as JSON, a text may be longer
  for (std::string_view line; lines.next(line);) {
    const std::string where = fmt::format("{}:{}", path.native(), lines.line_number());
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
  }
}

}  // namespace coppice
