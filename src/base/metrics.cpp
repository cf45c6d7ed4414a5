// Lines are built as text with a fixed number format, so that equal runs write equal bytes; a resume removes what the
// lost steps had written.
#include "src/base/metrics.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"

namespace coppice {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{4} << 30;

struct Lines {
  std::vector<std::string_view> whole;  // each with its newline
  bool torn = false;                    // text after the last newline
};

Lines split(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) {
      lines.torn = true;
      break;
    }
    lines.whole.push_back(text.substr(0, end + 1));
    text.remove_prefix(end + 1);
  }
  return lines;
}

std::optional<Json> try_parse(std::string_view line, std::string_view path) {
  try {
    Json value = parse_json(line, path);
    if (value.is_object()) return value;
  } catch (const UserError&) {
  }
  return std::nullopt;
}

double as_number(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (value == "inf") return std::numeric_limits<double>::infinity();
  if (value == "-inf") return -std::numeric_limits<double>::infinity();
  return std::numeric_limits<double>::quiet_NaN();
}

/// Cuts a torn last line and moves lines of steps after `last_step` into <stem>.cut.jsonl. Killed in between, it starts
/// over: at worst the cut file holds some lines twice.
void cut_after(const std::filesystem::path& path, int64_t last_step) {
  const std::string text = read_file(path, kMaxBytes);
  Lines lines = split(text);
  bool changed = lines.torn;
  if (!lines.whole.empty() &&
      !try_parse(lines.whole.back(), path.native())) {  // a crash of the machine may leave zeros instead of text
    lines.whole.pop_back();
    changed = true;
  }
  std::string kept, cut;
  for (const std::string_view line : lines.whole) {
    const auto object = try_parse(line, path.native());
    const bool later =
        object && object->contains("step") && as_number(object->at("step")) > static_cast<double>(last_step);
    (later ? cut : kept) += line;
  }
  if (!cut.empty()) {
    std::filesystem::path cut_path = path;
    cut_path.replace_extension(".cut.jsonl");
    OutputFile file(cut_path, OutputFile::Mode::append);
    file.write(cut);
    file.sync();
    file.close();
  }
  if (changed || !cut.empty()) write_file_atomically(path, kept);
}

}  // namespace

void MetricsLine::add(std::string key, int64_t value) {
  fields_.emplace_back(std::move(key), fmt::format("{}", value));
}

void MetricsLine::add(std::string key, double value) {
  std::string text = std::isnan(value)   ? "\"nan\""
                     : std::isinf(value) ? (value > 0 ? "\"inf\"" : "\"-inf\"")
                                         : fmt::format("{:.9g}", value);
  fields_.emplace_back(std::move(key), std::move(text));
}

std::string MetricsLine::to_json() const {
  std::string line = "{";
  for (const auto& [key, value] : fields_) {
    if (line.size() > 1) line += ',';
    line += Json(key).dump(-1, ' ', false, Json::error_handler_t::replace) + ":" + value;
  }
  return line + "}";
}

MetricsWriter::MetricsWriter(const std::filesystem::path& path, int64_t last_step) {
  if (std::filesystem::exists(path)) cut_after(path, last_step);
  file_ = std::make_unique<OutputFile>(path, OutputFile::Mode::append);
}
MetricsWriter::~MetricsWriter() = default;

void MetricsWriter::append(const MetricsLine& line) { file_->write(line.to_json() + "\n"); }
void MetricsWriter::sync() { file_->sync(); }

std::vector<std::map<std::string, double>> read_metrics(const std::filesystem::path& path) {
  std::vector<std::map<std::string, double>> rows;
  if (!std::filesystem::exists(path)) return rows;
  const std::string text = read_file(path, kMaxBytes);
  const Lines lines = split(text);
  for (size_t i = 0; i < lines.whole.size(); ++i) {
    const auto object = try_parse(lines.whole[i], path.native());
    if (!object && i + 1 == lines.whole.size()) break;
    if (!object) throw UserError::bad_file(path.native(), fmt::format("line {} is no JSON object", i + 1));
    auto& row = rows.emplace_back();
    for (const auto& [key, value] : object->items()) row[key] = as_number(value);
  }
  return rows;
}

}  // namespace coppice
