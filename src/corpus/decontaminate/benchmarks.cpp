#include "src/corpus/decontaminate/benchmarks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <glob.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/corpus/decontaminate/csv.h"
#include "src/text/byte_source.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxLineBytes = uint64_t{16} << 20, kMaxTableBytes = uint64_t{256} << 20;

struct Ending {
  std::string_view name;
  ByteSource::Coding coding;
};
constexpr Ending kEndings[] = {
    {".jsonl", ByteSource::Coding::plain},    {".jsonl.gz", ByteSource::Coding::gzip},
    {".jsonl.zst", ByteSource::Coding::zstd}, {".ndjson", ByteSource::Coding::plain},
    {".ndjson.gz", ByteSource::Coding::gzip}, {".ndjson.zst", ByteSource::Coding::zstd},
    {".json", ByteSource::Coding::plain},     {".json.gz", ByteSource::Coding::gzip},
    {".json.zst", ByteSource::Coding::zstd},  {".csv", ByteSource::Coding::plain},
};
constexpr const char* kEndingsInWords = ".jsonl, .ndjson, .json (each also with .gz or .zst behind it) or .csv";

const Ending* ending_of_benchmark(const fs::path& file) {
  const std::string name = file.filename().string();
  const auto* found = std::ranges::find_if(kEndings, [&](const Ending& ending) { return name.ends_with(ending.name); });
  return found == std::end(kEndings) ? nullptr : found;
}

BenchmarkItem item_of(const Json& line, const std::string& where) {
  if (!line.is_object()) throw UserError::bad_file(where, "got no JSON object, expected one a line");
  std::optional<BenchmarkItem> item = read_benchmark_item(line);
  if (item) return std::move(*item);
  std::vector<std::string> names;
  for (const auto& [name, value] : line.items()) names.push_back(printable(name));
  throw UserError::bad_file(where, fmt::format("fields {} are of no form that is known; name them as one of: {}",
                                               fmt::join(names, ", "), benchmark_forms()));
}

std::vector<BenchmarkItem> read_lines(const fs::path& file, ByteSource::Coding coding) {
  std::vector<BenchmarkItem> items;
  LineReader lines(file, coding, kMaxLineBytes);
  for (std::string_view line; lines.next(line);) {
    if (lines.line_number() == 1 && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}:{}", file.native(), lines.line_number());
    items.push_back(item_of(parse_json(line, where), where));
  }
  return items;
}

/// A table whose first row names its columns; without such a row it is MMLU's: question, four choices, letter.
std::vector<BenchmarkItem> read_table(const fs::path& file) {
  std::string bytes = read_file(file, kMaxTableBytes);
  if (bytes.starts_with(kByteOrderMark)) bytes.erase(0, kByteOrderMark.size());
  const auto rows = parse_csv(bytes);
  if (!rows) throw UserError::bad_file(file.native(), "a quote is not closed; write the table anew");
  const std::vector<std::string> mmlu = {"question", "A", "B", "C", "D", "answer"};
  const auto line_of = [](const std::vector<std::string>& names, const std::vector<std::string>& row) {
    Json line = Json::object();
    for (size_t i = 0; i < std::min(names.size(), row.size()); ++i) line[names[i]] = row[i];
    return line;
  };
  std::vector<BenchmarkItem> items;
  if (rows->empty()) return items;
  const bool has_names = read_benchmark_item(line_of(rows->front(), rows->front())).has_value();
  const std::vector<std::string>& names = has_names ? rows->front() : mmlu;
  for (size_t i = has_names ? 1 : 0; i < rows->size(); ++i) {
    const std::string where = fmt::format("{}: row {}", file.native(), i + 1);
    if (!has_names && (*rows)[i].size() != mmlu.size())
      throw UserError::bad_file(where,
                                fmt::format("got {} columns, expected question, A, B, C, D and answer, or a first "
                                            "row that names the columns",
                                            (*rows)[i].size()));
    items.push_back(item_of(line_of(names, (*rows)[i]), where));
  }
  return items;
}

}  // namespace

std::string benchmark_name(const fs::path& file) {
  const std::string name = file.filename().string();
  const Ending* ending = ending_of_benchmark(file);
  return ending == nullptr ? name : name.substr(0, name.size() - ending->name.size());
}

std::vector<fs::path> benchmark_files(const std::vector<std::string>& patterns, const std::string& where) {
  std::map<std::string, fs::path> files;  // by name
  for (const std::string& pattern : patterns) {
    glob_t found = {};
    const int status = ::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found);
    std::vector<fs::path> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
    ::globfree(&found);
    if (status != 0 || paths.empty())
      throw UserError::recipe(
          where,
          fmt::format("benchmarks: '{}' matches no file; expected files as benchmarks/*.jsonl", printable(pattern)));
    for (const fs::path& path : paths) {
      if (ending_of_benchmark(path) == nullptr || !fs::is_regular_file(path))
        throw UserError::recipe(where, fmt::format("benchmarks: '{}' is no file that is read; expected {}",
                                                   printable(path.native()), kEndingsInWords));
      const auto [place, fresh] = files.emplace(benchmark_name(path), path);
      std::error_code ignored;
      if (!fresh && !fs::equivalent(place->second, path, ignored))
        throw UserError::recipe(
            where, fmt::format("benchmarks: '{}' and '{}' are both called {}; rename one",
                               printable(place->second.native()), printable(path.native()), printable(place->first)));
    }
  }
  std::vector<fs::path> sorted;
  for (const auto& [name, path] : files) sorted.push_back(path);
  return sorted;
}

Benchmark read_benchmark(const fs::path& file) {
  const Ending* ending = ending_of_benchmark(file);
  COPPICE_CHECK(ending != nullptr, "benchmark_files() lists what is read");
  Benchmark benchmark{.name = benchmark_name(file),
                      .items = ending->name == ".csv" ? read_table(file) : read_lines(file, ending->coding)};
  if (benchmark.items.empty()) throw UserError::bad_file(file.native(), "holds no item");
  return benchmark;
}

}  // namespace coppice
