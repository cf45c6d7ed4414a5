#include "src/corpus/extract_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/corpus/extract_inputs.h"
#include "src/corpus/run/document_chain.h"
#include "src/corpus/run/run_corpus.h"
#include "src/text/document_writer.h"
#include "src/text/extraction.h"
#include "src/text/file_endings.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kUnreadable = "unreadable";
constexpr const char* kDuplicate = "duplicate";

/// Drops what is no text worth training on.
class TextStep : public DocumentStep {
 public:
  std::vector<Rule> rules() const override {
    return {{.name = "short", .least = kMinDocumentBytes},
            {.name = "not UTF-8", .most = 0},
            {.name = "binary", .most = 0},
            {.name = "navigation", .most = 0}};
  }
  std::unique_ptr<DocumentLook> start() const override {
    struct Look : DocumentLook {
      bool look(Document& document, std::span<double> values, bool) override {
        values[0] = static_cast<double>(document.text.size());
        if (document.text.size() < kMinDocumentBytes) return false;
        const char* reason = rejection_reason(document.text, text_kind(*document.file));
        constexpr std::string_view kReasons[] = {"not UTF-8", "binary", "navigation"};
        for (size_t i = 0; i < std::size(kReasons); ++i) values[i + 1] = reason != nullptr && reason == kReasons[i];
        return false;
      }
    };
    return std::make_unique<Look>();
  }
};

CorpusStep text_step() {
  CorpusStep step{.kind = "extract", .name = "extract", .step = std::make_shared<TextStep>(), .fingerprint = "1"};
  step.rules = step.step->rules();
  return step;
}

/// Takes the documents of one file; false, with a warning, where it cannot be read: a large tree has a few of those.
bool read_texts(const SourceFile& file, const ExtractOptions& options, const std::function<void(Document&&)>& take) {
  std::vector<std::string> texts;
  try {
    texts = extract_texts(file.path);
  } catch (const Error& error) {
    if (error.code() != ExitCode::bad_file && error.code() != ExitCode::io) throw;
    log_warning(error.what());
    return false;
  }
  const auto path = std::make_shared<const std::string>(file.path.string());
  for (size_t i = 0; i < texts.size(); ++i)
    take({.id = texts.size() == 1 ? file.name : fmt::format("{}#{}", file.name, i + 1),
          .source = options.source,
          .text = std::move(texts[i]),
          .license = options.license,
          .file = path});
  return true;
}

/// Of equal texts the first one that comes is new.
class SeenTexts {
 public:
  bool is_new(const std::string& text) { return seen_.insert(sha256_hex(text)).second; }

 private:
  std::set<std::string> seen_;
};

/// All inputs into one file.
class OneFile {
 public:
  explicit OneFile(const ExtractOptions& options)
      : options_(options),
        writer_(options.output),
        step_(text_step()),
        look_(step_.by_document()->start()),
        chain_({{.step = &step_, .look = look_.get()}}, {}) {}

  bool is_full() const { return report_.reached_max_bytes; }
  const ExtractReport& report() const { return report_; }

  void add(const SourceFile& file) {
    ++report_.files;
    std::vector<Document> documents;
    if (!read_texts(file, options_, [&](Document&& document) { documents.push_back(std::move(document)); }))
      ++report_.removed[kUnreadable];
    if (is_sample()) std::ranges::sort(documents, comes_first_by_hash, &Document::id);
    for (Document& document : documents) look(std::move(document));
  }

  ExtractReport commit() {
    std::ranges::sort(kept_, {}, &Document::id);
    for (const Document& document : kept_) writer_.write(document);
    writer_.commit();
    return report_;
  }

 private:
  bool is_sample() const { return options_.max_bytes > 0; }

  void look(Document&& document) {
    if (is_full()) return;
    if (stop_requested()) throw Stopped("");
    if (const std::optional<Removed> removed = chain_.look(document, /*all=*/false)) {
      ++report_.removed[removed->removal.rule];
      return;
    }
    const uint64_t bytes = document.text.size();
    // What is left of the budget grows smaller, so a text that does not fit now never will.
    const bool fits = !is_sample() || bytes <= options_.max_bytes - report_.text_bytes;
    if (!fits || !seen_.is_new(document.text)) {
      ++report_.removed[fits ? kDuplicate : "does not fit"];
      return;
    }
    ++report_.documents;
    report_.text_bytes += bytes;
    if (!is_sample()) return writer_.write(document);
    report_.reached_max_bytes = report_.text_bytes >= options_.max_bytes - options_.max_bytes / 100;
    kept_.push_back(std::move(document));
  }

  const ExtractOptions& options_;
  DocumentWriter writer_;
  CorpusStep step_;
  std::unique_ptr<DocumentLook> look_;
  DocumentChain chain_;
  SeenTexts seen_;
  ExtractReport report_;
  std::vector<Document> kept_;  // of a sample: max_bytes of text at most
};

[[noreturn]] void throw_empty(const ExtractOptions& options) {
  throw UserError::bad_file(options.inputs.front().string(), "holds no document with text");
}

ExtractReport write_one_file(const ExtractOptions& options, const std::vector<SourceFile>& files) {
  if (options.output.has_parent_path()) make_folder(options.output.parent_path());
  OneFile output(options);
  const ExtractReport& report = output.report();
  Progress progress("extract", files.size(), "file");
  try {
    for (const SourceFile& file : files) {
      if (stop_requested()) throw Stopped("");
      if (output.is_full()) break;
      output.add(file);
      progress.update(report.files, {{"", format_count(static_cast<double>(report.documents)) + " documents"},
                                     {"", format_bytes(static_cast<double>(report.text_bytes))}});
    }
  } catch (const Stopped&) {
    throw Stopped(fmt::format("stopped after {} files; nothing was written, run again to start over", report.files));
  }
  if (report.documents == 0) throw_empty(options);
  output.commit();
  std::string left_out;
  for (const auto& [rule, count] : report.removed)
    left_out += fmt::format("{} {} {}", left_out.empty() ? "; left out:" : ",", count, rule);
  log_info(fmt::format("{}: {} documents, {} of text from {} files{}", options.output.string(), report.documents,
                       format_bytes(static_cast<double>(report.text_bytes)), report.files, left_out));
  return report;
}

ExtractReport write_folder(const ExtractOptions& options, const std::vector<SourceFile>& files) {
  if (files.empty()) throw_empty(options);
  check_output_apart(options.inputs, options.output);
  CorpusSettings settings{.values = "none", .kept_values = CorpusSettings::Values::none};
  settings.sources.push_back({.name = options.source, .license = options.license});
  settings.steps.push_back(text_step());
  const auto read = [&](const SourceFile& file, const SourceOptions&, const ReadLimits&,
                        const std::function<void(Document &&)>& take, uint64_t* bytes_read) {
    SourceReport report;
    SeenTexts seen;
    const auto take_new = [&](Document&& document) {
      ++report.records;
      if (!seen.is_new(document.text)) {
        ++report.passed[kDuplicate];
        return;
      }
      ++report.documents;
      take(std::move(document));
    };
    if (!read_texts(file, options, take_new)) ++report.records, ++report.passed[kUnreadable];
    if (bytes_read != nullptr) *bytes_read = fs::file_size(file.path);
    return report;
  };
  const CorpusOutcome outcome =
      run_corpus(settings, {.out = options.output, .list = [&](const auto&) { return files; }, .read = read});
  if (outcome.documents.documents == 0) throw_empty(options);
  return {.files = outcome.files, .documents = outcome.documents.documents, .text_bytes = outcome.documents.text_bytes};
}

/// A file by its ending; a folder otherwise.
bool names_a_file(const fs::path& output) {
  const FileEnding* ending = ending_of(output);
  if (ending != nullptr && ending->kind == FileEnding::Kind::lines && ending->coding != ByteSource::Coding::gzip)
    return true;
  if (ending != nullptr || output.extension() == ".zst" || output.extension() == ".gz")
    throw UserError::recipe("--output", fmt::format("got '{}', expected a file name ending in .jsonl.zst or .jsonl, or "
                                                    "a folder",
                                                    output.string()));
  return false;
}

}  // namespace

ExtractReport extract_files(const ExtractOptions& options) {
  if (options.source.empty()) throw UserError::recipe("--source", "expected a name for where the text comes from");
  if (options.output.empty())
    throw UserError::recipe("--output", "expected a file name ending in .jsonl.zst, or a folder");
  if (options.inputs.empty()) throw UserError::recipe("", "expected at least one file or folder to extract");
  const bool one_file = names_a_file(options.output), sample = options.max_bytes > 0;
  if (sample && !one_file)
    throw UserError::recipe("--max-bytes", "counts the text of one file; expected --output to end in .jsonl.zst");
  const std::vector<SourceFile> files = list_extractable(options.inputs, options.source, sample);
  return one_file ? write_one_file(options, files) : write_folder(options, files);
}

}  // namespace coppice
