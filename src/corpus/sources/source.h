// Where documents come from: a [[data.source]] names files of one kind, each of which is read as a stream of documents.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "src/base/option_mark.h"
#include "src/text/documents.h"

namespace coppice {

struct SourceOptions {
  std::string name, where;  // where = file:line
  std::string path;         // a file, a folder or a pattern: * and ? within a name, ** over folders
  std::string kind;         // warc, wet, jsonl, parquet, html, text, code; empty: by each file's ending
  std::string text = "text";
  int64_t priority = 1;
  std::vector<std::string> stages;
  std::string license = "unknown";
  bool is_public = false;
  std::string homepage, date, pii;
  std::string text_option = "text";  // how messages call `text`: --text of a command line

  template <class Field>
  void visit_fields(Field& field) {
    field("name", name, Mark::decides, "what documents, reports and priorities call it");
    field("path", path, Mark::place, "a file, a folder, or a pattern such as crawl/*.warc.gz");
    field("kind", kind, Mark::decides, "warc, wet, jsonl, parquet, html, text or code; empty = by the file's ending");
    field("text", text, Mark::decides, "the field or column that holds a document's text");
    field("priority", priority, Mark::decides, "of copies in several sources the one of the lowest priority stays");
    field("stages", stages, Mark::decides, "stages of a recipe that may train on it; empty = all");
    field("license", license, Mark::decides, "licence of documents that name none: an SPDX id or LicenseRef-...");
    field("public", is_public, Mark::decides, "public data: licence, homepage and date must be given");
    field("homepage", homepage, Mark::decides, "where the data is described");
    field("date", date, Mark::decides, "when it was fetched, as 2026-01-31");
    field("pii", pii, Mark::decides, "\"checked elsewhere\": public data without a step for personal data");
  }
};

/// One input file, or a bundle of small ones that are a document each: what a task takes, and what one file of the
/// corpus comes from. Files of all sources are numbered in the order of their names.
struct SourceFile {
  std::string name;  // <source>/<path below the source's folder>: opens the ids of its documents
  std::filesystem::path path;
  std::string kind;                      // one of the list above
  uint32_t source = 0;                   // its number
  std::string output = {};               // how outputs are called: the name without the ending of its kind
  std::vector<SourceFile> members = {};  // of a bundle, whose path is the source's
};

/// Of the file, or of all members.
uint64_t stored_bytes(const SourceFile& file);

/// The files of all sources, sorted by name. Pages, texts and source files that follow one another in a source are
/// bundled, up to 1,000 of them and 64 MB, as <source>/files-00001: an output for each would cost more than its text.
/// Links and devices below a folder are passed over; the folder of a corpus is its documents (documents_folder).
/// Outputs are called as the files are, without endings such as .warc.gz, but where two files would share one.
/// UserError::recipe at the source's place for a path that matches nothing, a kind that does not exist, two files of
/// one name.
std::vector<SourceFile> list_source_files(const std::vector<SourceOptions>& sources);

/// Refuses a folder to write that lies in a source's folder, or holds it: what is written would be read, at the latest
/// when the run is resumed. A pattern may pass the folder by. UserError::recipe at the source's place.
void check_output_apart(const std::vector<SourceOptions>& sources, const std::filesystem::path& out);
/// The same of files and folders of a command line.
void check_output_apart(const std::vector<std::filesystem::path>& inputs, const std::filesystem::path& out);

struct ReadLimits {
  double max_bad_share = 0.001;  // share of a file's records that may be bad (at least 100 may be); 1 = all
  uint64_t max_document_bytes = kMaxDocumentBytes;
};

/// What a file held besides documents.
struct SourceReport {
  uint64_t documents = 0;  // taken
  uint64_t records = 0;    // seen, bad ones among them
  std::map<std::string, uint64_t>
      passed;                           // records that hold no document, by reason: "empty", "status 404", "not html"
  std::map<std::string, uint64_t> bad;  // damaged records, by reason: "no JSON", "invalid UTF-8", "cut short"
  std::vector<std::string> first_bad;   // file:line or file:offset: reason; ten at most
};

/// Calls `take` for the documents of one file in their order, with keep_fields. Pages come with is_page and
/// metadata.url, date, as UTF-8. `bytes_read`, where given, grows up to the size of the file. UserError::bad_file
/// naming file and first records for more bad ones than the limit, or nothing but bad ones; for a packed JSONL file
/// that is cut short or damaged (max_bad_share = 1 counts it), for more than a share max_bad_share of a WARC file's
/// bytes, and more than 1 MiB, lost behind damage.
SourceReport read_source_file(const SourceFile& file, const SourceOptions& source, const ReadLimits& limits,
                              const std::function<void(Document&&)>& take, uint64_t* bytes_read = nullptr);

/// Whether the program that reads Parquet was built: reading such a file is refused otherwise.
bool can_read_parquet();

}  // namespace coppice
