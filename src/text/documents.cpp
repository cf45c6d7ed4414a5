// Reading a corpus: records of JSON lines and arrays, text files as one document each, folders in sorted order.
#include "src/text/documents.h"

#include <fmt/format.h>
#include <simdjson.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <optional>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/input_file.h"
#include "src/base/log.h"
#include "src/text/array_reader.h"
#include "src/text/byte_source.h"
#include "src/text/document_record.h"
#include "src/text/documents_folder.h"
#include "src/text/file_endings.h"
#include "src/text/text_encoding.h"

namespace coppice {

namespace {

namespace fs = std::filesystem;

constexpr size_t kFirst = 10;           // bad records of a file that are shown
constexpr size_t kQuoted = 3;           // of them in a refusal
constexpr uint64_t kMaxBad = 100;       // of a file, or
constexpr double kMaxBadShare = 0.001;  // of its records, whichever is more
constexpr uint64_t kHopeless = 10'000;  // records without a document among them: nobody reads on
constexpr size_t kFilesNamed = 20;

using Kind = FileEnding::Kind;

/// The hash of an id as a number in [0, 1).
double place_of(std::string_view id) { return static_cast<double>(document_hash(id) >> 11) * 0x1p-53; }

/// `3 of 200 records are no documents: a.jsonl:7: ...; a.jsonl:9: ...`.
std::string sentence(const BadRecords& bad, const std::string& records) {
  std::string text = fmt::format("{} of {} {} are no documents", bad.bad, bad.records, records);
  for (size_t i = 0; i < std::min(bad.first.size(), kQuoted); ++i) text += (i == 0 ? ": " : "; ") + bad.first[i];
  return text;
}

class CorpusReader {
 public:
  CorpusReader(fs::path path, const std::function<void(Document&&)>& visit, const CorpusOptions& options,
               uint64_t* bytes_read)
      : path_(std::move(path)),
        visit_(visit),
        options_(options),
        bytes_read_(bytes_read),
        parser_(options.text_key, options.keep_fields, options.text_option) {}

  void read(const fs::path& path, const std::string& relative) {
    const FileEnding* ending = ending_of(path);
    if (ending == nullptr)
      throw UserError::bad_file(path.string(), fmt::format("expected a folder or a file ending in {}", kCorpusEndings));
    file_ = std::make_shared<const std::string>(relative);
    if (ending->kind == Kind::text) return read_text(path);
    ++report_.json_files;
    const JsonLayout layout = ending->kind == Kind::lines ? JsonLayout::lines : json_layout(path, ending->coding);
    if (layout == JsonLayout::object)
      throw UserError::bad_file(
          path.string(),
          "is one JSON object over several lines; expected an array of documents, or one document a line");
    if (layout == JsonLayout::array) return read_records(ArrayReader(path, ending->coding, kMaxDocumentBytes), path);
    read_records(LineReader(path, ending->coding, kMaxDocumentBytes, LineReader::LongLines::pass_over), path);
  }

  CorpusReport finish() {
    if (foreign_ > 0 && options_.max_bad < 0)
      throw UserError::bad_file(
          path_.string(),
          fmt::format("{} of {} text files are in another encoding: {}; data.max_bad = {} leaves them out", foreign_,
                      texts_.records, first_foreign_, texts_.bad));
    close(texts_, path_, "text files");
    if (report_.documents > 0) return std::move(report_);
    std::string found;
    if (report_.empty > 0) found += fmt::format("; {} records have an empty text", report_.empty);
    if (!report_.bad.empty())
      found += fmt::format("; {}: {}", report_.bad.front().file, sentence(report_.bad.front(), "records"));
    throw UserError::bad_file(path_.string(), "holds no document with text" + found);
  }

 private:
  void emit(Document&& document, uint64_t record) {
    if (document.text.empty()) {  // holds no token
      ++report_.empty;
      return;
    }
    if (document.id.empty()) document.id = fmt::format("{}#{}", *file_, record);
    if (document.source.empty()) document.source = *file_;
    document.file = file_;
    ++report_.documents;
    visit_(std::move(document));
  }

  void add_bad(BadRecords& records, std::string reason) {
    ++records.bad;
    if (records.first.size() < kFirst) records.first.push_back(std::move(reason));
  }

  /// Whatever follows, the file will be refused, or almost surely so.
  bool is_hopeless(const BadRecords& records) const {
    return options_.max_bad >= 0 ? records.bad > static_cast<uint64_t>(options_.max_bad)
                                 : records.bad >= kHopeless && records.bad == records.records;
  }

  /// At the end of a file: its bad records are few enough to be left out, or it is refused.
  void close(BadRecords& records, const fs::path& path, const std::string& what) {
    if (records.bad == 0) return;
    const uint64_t limit =
        options_.max_bad >= 0
            ? static_cast<uint64_t>(options_.max_bad)
            : std::max(kMaxBad, static_cast<uint64_t>(static_cast<double>(records.records) * kMaxBadShare));
    if (records.bad > limit)
      throw UserError::bad_file(path.string(), fmt::format("{}; mend them, or let data.max_bad leave out more than {}",
                                                           sentence(records, what), limit));
    report_.bad.push_back(std::move(records));
  }

  void read_text(const fs::path& path) {
    texts_.file = "text files";
    ++texts_.records;
    const uint64_t bytes = stored_bytes(path);
    if (bytes_read_ != nullptr) *bytes_read_ += bytes;
    if (bytes > kMaxDocumentBytes)
      return add_bad(texts_, fmt::format("{}: is longer than {} bytes", *file_, kMaxDocumentBytes));
    Document document;
    document.text = read_file(path, kMaxDocumentBytes);
    const char* encoding = wide_encoding(document.text);
    const bool valid = encoding == nullptr && simdjson::validate_utf8(document.text);
    if (!valid && encoding == nullptr) encoding = narrow_encoding(document.text);
    if (encoding != nullptr) {
      const std::string reason = fmt::format("{}: is not UTF-8 and {}", *file_, encoding_advice(encoding, path));
      if (++foreign_ <= kQuoted) first_foreign_ += (foreign_ == 1 ? "" : "; ") + reason;
      return add_bad(texts_, reason);
    }
    if (!valid)
      return add_bad(texts_, fmt::format("{}: byte {} is not valid UTF-8: damaged, or no text", *file_,
                                         valid_utf8_bytes(document.text) + 1));
    if (document.text.starts_with(kByteOrderMark)) document.text.erase(0, kByteOrderMark.size());
    emit(std::move(document), 1);
  }

  template <class Records>
  void read_records(Records records, const fs::path& path) {
    const uint64_t before = bytes_read_ == nullptr ? 0 : *bytes_read_;
    BadRecords bad{.file = *file_};
    std::string what = "records";
    for (std::string_view record; records.next(record);) {
      if (bytes_read_ != nullptr) *bytes_read_ = before + records.bytes_read();
      const uint64_t line = records.line_number();
      if (line == 1 && record.starts_with(kByteOrderMark)) record.remove_prefix(kByteOrderMark.size());
      if (line == 1)
        if (const char* encoding = wide_encoding(record))
          throw UserError::bad_file(path.string(), fmt::format("is not UTF-8 and {}", encoding_advice(encoding, path)));
      if (!records.too_long() && record.find_first_not_of(" \t") == std::string_view::npos) continue;
      ++bad.records;
      try {
        if (records.too_long())
          throw BadRecord(fmt::format("line {} is longer than {} bytes", line, kMaxDocumentBytes));
        Document document = parser_.parse(record);
        document.line = line;
        emit(std::move(document), bad.records);
      } catch (const BadRecord& error) {
        add_bad(bad, bad.first.size() < kFirst
                         ? fmt::format("{}:{}: record {}: {}", *file_, line, bad.records, error.what())
                         : "");
        if (is_hopeless(bad)) {
          what = "records looked at";
          break;
        }
      }
    }
    close(bad, path, what);
  }

  const fs::path path_;  // of the whole corpus
  const std::function<void(Document&&)>& visit_;
  const CorpusOptions& options_;
  uint64_t* bytes_read_;
  RecordParser parser_;
  std::shared_ptr<const std::string> file_;  // at hand
  BadRecords texts_;                         // all text files together: each is one record
  uint64_t foreign_ = 0;                     // text files in another encoding
  std::string first_foreign_;
  CorpusReport report_;
};

/// Looks inside where the name does not say it.
bool is_corpus_file(const fs::path& path) {
  const FileEnding* ending = ending_of(path);
  return ending->kind != Kind::json || json_layout(path, ending->coding) != JsonLayout::object;
}

}  // namespace

std::vector<std::string> corpus_files(const fs::path& folder, std::vector<std::string>* left_out) {
  std::vector<std::string> names;
  std::vector<std::string> others;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(documents_folder(folder), error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code unknown;
    const fs::file_type type = entry->status(unknown).type();
    if (type == fs::file_type::directory) continue;
    std::string name = entry->path().lexically_relative(folder).generic_string();
    const bool has_ending = ending_of(entry->path()) != nullptr;
    if (has_ending && (type == fs::file_type::none || type == fs::file_type::not_found))
      throw UserError::bad_file(entry->path().string(), unknown ? unknown.message() : "a link that leads nowhere");
    if (!has_ending || type != fs::file_type::regular ||
        !is_corpus_file(entry->path())) {  // a FIFO of such a name would hang its reader
      others.push_back(std::move(name));
      continue;
    }
    names.push_back(std::move(name));
  }
  if (error) throw UserError::bad_file(folder.string(), "cannot list the folder: " + error.message());
  std::sort(names.begin(), names.end());
  std::ranges::sort(others);
  if (left_out != nullptr) *left_out = std::move(others);
  return names;
}

uint64_t stored_bytes(const fs::path& path) {
  const auto bytes_of = [](const fs::path& file) {
    std::error_code error;
    const uint64_t bytes = fs::file_size(file, error);
    if (error) throw UserError::bad_file(file.string(), error.message());
    return bytes;
  };
  std::error_code error;
  if (!fs::is_directory(path, error)) return bytes_of(path);
  uint64_t bytes = 0;
  for (const std::string& name : corpus_files(path)) bytes += bytes_of(path / name);
  return bytes;
}

CorpusReport for_each_document(const fs::path& path, const std::function<void(Document&&)>& visit,
                               const CorpusOptions& options, uint64_t* bytes_read) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (error || !fs::exists(status))
    throw UserError::bad_file(path.string(), "no such file or folder" + searched_from(path));
  CorpusReader reader(path, visit, options, bytes_read);
  std::vector<std::string> other_files;
  if (!fs::is_directory(status)) {
    reader.read(path, path.filename().string());
  } else {
    for (const std::string& name : corpus_files(path, &other_files)) reader.read(path / name, name);
  }
  CorpusReport report = reader.finish();
  report.other_files = std::move(other_files);
  return report;
}

uint64_t CorpusReport::num_bad() const {
  uint64_t sum = 0;
  for (const BadRecords& file : bad) sum += file.bad;
  return sum;
}

void log_corpus_report(const fs::path& path, const CorpusReport& report, const CorpusOptions& options) {
  std::error_code error;
  const std::string where = path.string();
  const fs::path folder =
      fs::is_directory(path, error) ? path : path.parent_path();  // its records are named from there
  if (!report.other_files.empty())
    log_warning(fmt::format(
        "{}: {} files were left out, which do not end in {} or are .json of one object over several lines: {}{}", where,
        report.other_files.size(), kCorpusEndings, report.other_files.front(),
        report.other_files.size() > 1 ? " first" : ""));
  if (report.empty > 0)
    log_warning(fmt::format("{}: {} records have an empty text and were left out", where, report.empty));
  if (report.json_files == 0 && options.text_key != CorpusOptions().text_key)
    log_warning(fmt::format("{}: {} = \"{}\" has no effect: text files have no fields", where, options.text_option,
                            options.text_key));
  for (size_t i = 0; i < std::min(report.bad.size(), kFilesNamed); ++i) {
    for (const std::string& reason : report.bad[i].first) log_warning((folder / reason).string());
    log_warning(fmt::format("{}: {} of {} records are no documents and were left out{}",
                            (folder / report.bad[i].file).string(), report.bad[i].bad, report.bad[i].records,
                            report.bad[i].bad > report.bad[i].first.size()
                                ? fmt::format("; the first {} are shown", report.bad[i].first.size())
                                : ""));
  }
  if (report.bad.size() > kFilesNamed)
    log_warning(fmt::format("{}: {} more files hold bad records; {} are left out in all", where,
                            report.bad.size() - kFilesNamed, report.num_bad()));
}

uint64_t text_hash(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t begin = std::min(text.find_first_not_of(kBlanks), text.size()), end = text.find_last_not_of(kBlanks) + 1;
  return begin < end ? XXH3_64bits(text.data() + begin, end - begin) : 0;
}

uint64_t document_hash(std::string_view id) { return XXH3_64bits(id.data(), id.size()); }

uint64_t sample_hash(std::string_view id) {
  return XXH3_64bits_withSeed(id.data(), id.size(), 0x73616d706c65);
}  // "sample"

bool is_heldout(std::string_view id, double heldout_share) { return place_of(id) < heldout_share; }

bool is_tuning(std::string_view id, double tuning_share) { return place_of(id) >= 1 - tuning_share; }

}  // namespace coppice
