// `coppice data extract`: files of HTML, text, source code and dictionaries become documents with stable ids, source
// and licence.
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
  std::filesystem::path output;               // one file (.jsonl.zst, .jsonl), or a folder
  uint64_t max_bytes = 0;                     // of text, of one file; 0 = everything
  std::vector<std::filesystem::path> inputs;  // files and folders
};

struct ExtractReport {
  uint64_t files = 0;                       // that were read
  uint64_t documents = 0;                   // that were written
  uint64_t text_bytes = 0;                  // of them
  std::map<std::string, uint64_t> removed;  // of one file: texts left out, by rule; files by "unreadable"
  bool reached_max_bytes = false;           // the rest was not looked at
};

/// One document a file, named like it; of a dictionary many, `<name>#<number>`. What is no text worth training on goes
/// (rejection_reason), and of equal texts the first one stays. A file that cannot be read is warned about and counted.
/// Into one file: all inputs in the order of their names, memory holds one at a time. With max_bytes files are visited
/// in the order of their names' sample_hash, so that a part of a tree is a sample of all of it and of its held-out
/// documents; what would not fit is passed over, 99% is full, and the documents are sorted by id.
/// Into a folder: a corpus of one source (run_corpus), a file for each input; equal texts are found inside of it alone.
/// UserError::recipe for a missing source, output or input, for two files of one name and for max_bytes with a folder;
/// UserError::bad_file for an input that is missing and when no document is left. Throws Stopped between two documents.
ExtractReport extract_files(const ExtractOptions& options);

}  // namespace coppice
