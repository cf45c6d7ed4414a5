// With a budget: the files in the order of their hashes until it is full, then written in the order of ids. Without:
// file by file, straight to the output.
#include "recipes/commands/command_extract.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/text/document_writer.h"
#include "src/text/documents.h"
#include "src/text/extraction.h"

namespace coppice {

namespace {

namespace fs = std::filesystem;

struct InputFile {
  std::string id;
  fs::path path;
};

void add_file(std::vector<InputFile>& files, const std::string& source, const fs::path& path,
              const std::string& relative) {
  if (text_kind(path) != TextKind::none) files.push_back({source + "/" + relative, path});
}

/// Every file with text in it. Links are not followed: documentation packages link pages to each other and to places
/// outside.
std::vector<InputFile> list_files(const ExtractOptions& options) {
  std::vector<InputFile> files;
  for (const fs::path& input : options.inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (error || !fs::exists(status)) throw UserError::bad_file(input.string(), "no such file or folder");
    if (!fs::is_directory(status)) {
      if (text_kind(input) == TextKind::none)
        throw UserError::bad_file(input.string(),
                                  "expected a folder, or a file of HTML, text, source code or dictionary entries "
                                  "(.html, .txt, .py, .dict.dz, ...)");
      add_file(files, options.source, input, input.filename().generic_string());
      continue;
    }
    for (fs::recursive_directory_iterator entry(input, error), end; !error && entry != end; entry.increment(error)) {
      if (entry->is_symlink() || !entry->is_regular_file()) continue;
      add_file(files, options.source, entry->path(), entry->path().lexically_relative(input).generic_string());
    }
    if (error) throw UserError::bad_file(input.string(), "cannot list the folder: " + error.message());
  }
  return files;
}

/// By the hash of the id, then by id.
template <class Item>
void sort_by_hash(std::vector<Item>& items) {
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    const uint64_t hash_a = sample_hash(a.id), hash_b = sample_hash(b.id);
    return hash_a != hash_b ? hash_a < hash_b : a.id < b.id;
  });
}

/// Of files in an order that puts equal ids side by side.
void check_ids_differ(const std::vector<InputFile>& files) {
  for (size_t i = 1; i < files.size(); ++i) {
    if (files[i].id == files[i - 1].id) {
      throw UserError::recipe(
          "", fmt::format("'{}' and '{}' would share the id '{}'; extract them one by one with a source each",
                          files[i - 1].path.string(), files[i].path.string(), files[i].id));
    }
  }
}

/// In the order of the file. One that cannot be read or parsed is named and left out: a large tree has a few.
std::vector<Document> documents_of(const InputFile& file, const ExtractOptions& options, ExtractReport& report) {
  std::vector<std::string> texts;
  try {
    texts = extract_texts(file.path);
  } catch (const Error& error) {
    if (error.code() != ExitCode::bad_file && error.code() != ExitCode::io) throw;
    log_warning(error.what());
    ++report.rejected["unreadable"];
  }
  std::vector<Document> documents;
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string id = texts.size() == 1 ? file.id : fmt::format("{}#{}", file.id, i + 1);
    documents.push_back({.id = id, .source = options.source, .text = std::move(texts[i]), .license = options.license});
  }
  return documents;
}

}  // namespace

ExtractReport extract_documents(const ExtractOptions& options) {
  if (options.source.empty()) throw UserError::recipe("--source", "expected a name for where the text comes from");
  if (options.output.empty()) throw UserError::recipe("--output", "expected a file name ending in .jsonl.zst");
  if (options.inputs.empty()) throw UserError::recipe("", "expected at least one file or folder to extract");

  const bool sample = options.max_bytes > 0;
  std::vector<InputFile> files = list_files(options);
  if (sample)
    sort_by_hash(files);
  else
    std::sort(files.begin(), files.end(), [](const InputFile& a, const InputFile& b) { return a.id < b.id; });
  check_ids_differ(files);
  if (options.output.has_parent_path()) make_folder(options.output.parent_path());
  DocumentWriter writer(options.output);

  ExtractReport report;
  std::set<std::string> seen_texts;  // SHA-256 of every text kept
  std::vector<Document> kept;        // of a sample: max_bytes of text at most
  for (const InputFile& file : files) {
    if (stop_requested())
      throw Stopped(fmt::format("stopped after {} files; nothing was written, run again to start over", report.files));
    if (report.reached_max_bytes) break;
    ++report.files;
    std::vector<Document> documents = documents_of(file, options, report);
    if (sample) sort_by_hash(documents);
    for (Document& document : documents) {
      if (const char* reason = rejection_reason(document.text, text_kind(file.path))) {
        ++report.rejected[reason];
        continue;
      }
      if (sample && report.text_bytes + document.text.size() > options.max_bytes) {
        ++report.rejected["does not fit"];
        continue;
      }
      if (!seen_texts.insert(sha256_hex(document.text)).second) {
        ++report.rejected["duplicate"];
        continue;
      }
      ++report.documents;
      report.text_bytes += document.text.size();
      if (!sample) {
        writer.write(document);
        continue;
      }
      kept.push_back(std::move(document));
      if (report.text_bytes >= options.max_bytes - options.max_bytes / 100) {
        report.reached_max_bytes = true;
        break;
      }
    }
  }
  if (report.documents == 0) throw UserError::bad_file(options.inputs.front().string(), "holds no document with text");

  std::sort(kept.begin(), kept.end(), [](const Document& a, const Document& b) { return a.id < b.id; });
  for (const Document& document : kept) writer.write(document);
  writer.commit();

  std::string left_out;
  for (const auto& [reason, count] : report.rejected)
    left_out += fmt::format("{} {} {}", left_out.empty() ? "; left out:" : ",", count, reason);
  log_info(fmt::format("{}: {} documents, {} of text from {} files{}", options.output.string(), report.documents,
                       format_bytes(static_cast<double>(report.text_bytes)), report.files, left_out));
  return report;
}

void run_extract(const ExtractOptions& options) {
  const ExtractReport report = extract_documents(options);
  fmt::print("{} documents, {} bytes of text\n", report.documents, report.text_bytes);
}

}  // namespace coppice
