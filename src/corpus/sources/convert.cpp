#include "src/corpus/sources/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/corpus/run/corpus_rights.h"
#include "src/corpus/sources/page_flag.h"
#include "src/corpus/sources/path_pattern.h"
#include "src/text/document_writer.h"

namespace coppice {

namespace {

namespace fs = std::filesystem;

constexpr size_t kFirst = 10;

/// The folder: `crawl` for crawl/, crawl/a.jsonl and crawl/*.warc.gz; the second of a name is `crawl-2`.
std::string name_of(const std::string& input, const std::vector<SourceOptions>& others) {
  fs::path path = is_pattern(input) ? split_pattern(input).folder : fs::path(input);
  path = fs::absolute(path).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();
  std::error_code error;
  const bool is_file = fs::is_regular_file(path, error);
  std::string base = (is_file ? path.parent_path() : path).filename().string();
  if (base.empty()) base = "input";
  std::string name = base;
  const auto is_taken = [&] {
    return std::ranges::any_of(others, [&](const auto& other) { return other.name == name; });
  };
  for (int number = 2; is_taken(); ++number) name = fmt::format("{}-{}", base, number);
  return name;
}

void add(SourceReport& total, const SourceReport& report) {
  total.documents += report.documents;
  total.records += report.records;
  for (const auto& [reason, count] : report.passed) total.passed[reason] += count;
  for (const auto& [reason, count] : report.bad) total.bad[reason] += count;
  for (const std::string& line : report.first_bad)
    if (total.first_bad.size() < kFirst) total.first_bad.push_back(line);
}

/// What is converted no longer lies where its rights are told.
void warn_of_rights(const SourceOptions& source) {
  const fs::path path = is_pattern(source.path) ? split_pattern(source.path).folder : fs::path(source.path);
  for (const SourceRights& rights : corpus_rights(path))
    if (!rights.stages.empty())
      log_warning(
          fmt::format("{} holds documents of {}, which what is written does not say; where it is a source, give "
                      "it such stages",
                      source.path, closed_text(rights)));
}

/// Begins a file with the first document, and the next one when it is full.
class Files {
 public:
  Files(const ConvertOptions& options, ConvertReport& report) : options_(options), report_(report) {}

  void write(Document&& document) {
    if (writer_ == nullptr) {
      const std::string name = fmt::format("documents-{:05}.jsonl.zst", report_.files.size());
      writer_ = std::make_unique<DocumentWriter>(options_.out / name);
      report_.files.push_back(name);
    }
    report_.pages += document.is_page;
    report_.text_bytes += document.text.size();
    put_page_flag(document);
    writer_->write(document);
    if (writer_->text_bytes() >= options_.file_bytes) finish();
  }

  void finish() {
    if (writer_ != nullptr) writer_->commit();
    writer_ = nullptr;
  }

 private:
  const ConvertOptions& options_;
  ConvertReport& report_;
  std::unique_ptr<DocumentWriter> writer_;
};

}  // namespace

ConvertReport convert_to_documents(const ConvertOptions& options) {
  std::vector<SourceOptions> sources;
  for (const std::string& input : options.inputs) {
    SourceOptions source{.name = name_of(input, sources), .path = input, .kind = options.kind, .text = options.text};
    source.where = input;
    source.license = options.license;
    source.text_option = "--text";
    sources.push_back(std::move(source));
  }
  if (sources.empty()) throw UserError::recipe("", "no input: name files, folders or patterns");
  check_output_apart(sources, options.out);
  const std::vector<SourceFile> files = list_source_files(sources);
  for (const SourceOptions& source : sources) warn_of_rights(source);
  make_folder(options.out);
  for (const auto& entry : fs::directory_iterator(options.out)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("documents-") && name.ends_with(".jsonl.zst"))
      throw UserError::recipe("",
                              fmt::format("'{}' holds {} already; name another folder", options.out.string(), name));
  }
  ConvertReport report;
  Files out(options, report);
  for (const SourceFile& file : files)
    add(report.total, read_source_file(file, sources[file.source], {.max_bad_share = options.max_bad_share},
                                       [&](Document&& document) { out.write(std::move(document)); }));
  out.finish();
  sync_folder(options.out);
  return report;
}

}  // namespace coppice
