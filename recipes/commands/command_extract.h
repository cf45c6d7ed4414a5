// `coppice data extract`: folders of HTML, text, source code and dictionaries become one file of documents with stable
// ids, source and licence.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace coppice {

struct ExtractOptions {
  std::string source;                         // where the text comes from: a package, a book; opens every id
  std::string license;                        // stored with every document; may be empty
  std::filesystem::path output;               // .jsonl.zst
  uint64_t max_bytes = 0;                     // of text; 0 = everything
  std::vector<std::filesystem::path> inputs;  // files and folders
};

struct ExtractReport {
  uint64_t files = 0;      // that were read
  uint64_t documents = 0;  // that were written
  uint64_t text_bytes = 0;
  std::map<std::string, uint64_t> rejected;  // texts left out, by reason
  bool reached_max_bytes = false;            // the rest was not looked at
};

/// Writes the documents of `inputs` to `output`: `<source>/<path inside the input>`, with `#<number>` where a file
/// holds several. Without max_bytes the files come in the order of their ids and memory holds one at a time. With
/// max_bytes, files are visited in the order of their ids' sample_hash, so that a part of a tree is a sample of all of
/// it and of its held-out documents; what would not fit is passed over, 99% is full, and the documents are sorted by
/// id. Of equal texts the first one visited stays; a file that cannot be read or parsed is warned about and left out.
/// The same inputs give the same bytes. Throws Stopped between two files. UserError::recipe for a missing source,
/// output or input and for two files with one id; UserError::bad_file for an input that is missing and when no document
/// is left.
ExtractReport extract_documents(const ExtractOptions& options);

/// The command: extract_documents(), then one line on stdout: `1189 documents, 1253004 bytes of text`.
void run_extract(const ExtractOptions& options);

}  // namespace coppice
