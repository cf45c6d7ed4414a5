// Sources of JSON lines and text, through for_each_document.
#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "src/base/errors.h"
#include "src/corpus/sources/source.h"

namespace coppice {

namespace fs = std::filesystem;

std::vector<SourceFile> list_source_files(const std::vector<SourceOptions>& sources) {
  std::vector<SourceFile> files;
  for (uint32_t i = 0; i < sources.size(); ++i) {
    const fs::path path = sources[i].path;
    std::error_code error;
    if (!fs::exists(path, error))
      throw UserError::recipe(sources[i].where, fmt::format("path: '{}' matches no file", path.string()));
    if (fs::is_directory(path)) {
      for (const std::string& name : corpus_files(path))
        files.push_back({sources[i].name + "/" + name, path / name, "jsonl", i});
    } else {
      files.push_back({sources[i].name + "/" + path.filename().string(), path, "jsonl", i});
    }
  }
  std::ranges::sort(files, {}, &SourceFile::name);
  return files;
}

SourceReport read_source_file(const SourceFile& file, const SourceOptions& source, const ReadLimits& limits,
                              const std::function<void(Document&&)>& take, uint64_t* bytes_read) {
  SourceReport report;
  const auto visit = [&](Document&& document) {
    document.source = source.name;
    if (document.license.empty()) document.license = source.license;
    ++report.documents;
    take(std::move(document));
  };
  const CorpusReport read = for_each_document(
      file.path, visit, {.text_key = source.text, .max_bad = limits.max_bad == 1 ? INT64_MAX : -1, .keep_fields = true},
      bytes_read);
  report.records = read.documents + read.empty + read.num_bad();
  if (read.empty > 0) report.passed["empty"] = read.empty;
  if (read.num_bad() > 0) report.bad["bad"] = read.num_bad();
  for (const BadRecords& bad : read.bad) report.first_bad = bad.first;
  return report;
}

}  // namespace coppice
