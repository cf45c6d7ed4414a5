#include "src/corpus/sources/reading.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/text/document_metadata.h"

namespace coppice {

namespace {

constexpr size_t kFirst = 10, kQuoted = 3;  // damaged records that are kept, and named in an error
constexpr uint64_t kMaxBad = 100, kHopeless = 1000;

}  // namespace

SourceReading::SourceReading(const SourceFile& file, const SourceOptions& source, const ReadLimits& limits,
                             const std::function<void(Document&&)>& take, uint64_t* bytes_read)
    : file(file),
      source(source),
      limits(limits),
      take_(take),
      bytes_read_(bytes_read),
      bytes_before_(bytes_read == nullptr ? 0 : *bytes_read),
      name_(std::make_shared<const std::string>(file.name)) {}

void SourceReading::damage(const std::string& reason, uint64_t place, std::string_view detail) {
  ++num_bad_;
  ++report_.bad[reason];
  if (report_.first_bad.size() < kFirst)
    report_.first_bad.push_back(fmt::format("{}:{}: record {}: {}", file.name, place, report_.records, detail));
}

void SourceReading::take(Document&& document) {
  if (document.text.empty()) return pass("empty");
  if (document.id.empty())
    document.id = document.line == 0 ? file.name : fmt::format("{}#{}", file.name, report_.records);
  if (document.source.empty()) document.source = source.name;
  if (document.license.empty()) document.license = member_text(document, "license");
  if (document.license.empty()) {
    document.license = source.license;
    document.is_source_license = true;
  }
  if (document.file == nullptr) document.file = name_;
  ++report_.documents;
  take_(std::move(document));
}

void SourceReading::set_bytes_read(uint64_t bytes) {
  if (bytes_read_ != nullptr) *bytes_read_ = bytes_before_ + bytes;
}

bool SourceReading::is_hopeless() const {
  return limits.max_bad_share < 1 && num_bad_ >= kHopeless && num_bad_ == report_.records;
}

SourceReport SourceReading::finish(bool refuse_all_damaged) {
  const uint64_t allowed =
      std::max(kMaxBad, static_cast<uint64_t>(limits.max_bad_share * static_cast<double>(report_.records)));
  const bool is_all = refuse_all_damaged && num_bad_ > 0 && num_bad_ == report_.records;
  if (limits.max_bad_share >= 1 || (num_bad_ <= allowed && !is_all)) return std::move(report_);
  std::string first;
  for (size_t i = 0; i < std::min(report_.first_bad.size(), kQuoted); ++i)
    first += (i == 0 ? ": " : "; ") + report_.first_bad[i];
  throw UserError::bad_file(
      file.path.string(),
      fmt::format("{} of {} records are damaged{}; mend the file, or let max_bad_share = 1 leave them out", num_bad_,
                  report_.records, first));
}

SourceReport read_source_file(const SourceFile& file, const SourceOptions& source, const ReadLimits& limits,
                              const std::function<void(Document&&)>& take, uint64_t* bytes_read) {
  SourceReading reading(file, source, limits, take, bytes_read);
  const bool is_one_document = file.kind == "html" || file.kind == "text" || file.kind == "code";
  if (file.kind == "jsonl")
    read_json_source(reading);
  else if (file.kind == "warc" || file.kind == "wet")
    read_warc_source(reading);
  else if (file.kind == "parquet")
    read_parquet_source(reading);
  else if (is_one_document)
    read_file_source(reading);
  else
    throw InternalError("a kind of source that list_source_files() does not give: " + file.kind);
  return reading.finish(!is_one_document);
}

}  // namespace coppice
