// The one driver of the steps that a corpus goes through: it lists the input files, reads them, sends every document
// through a chain of map steps, counts what goes by its rule, and writes. A step is a row of step_table.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "src/text/documents.h"
#include "src/text/steps/map_step.h"

namespace coppice {

struct StepOptions {
  std::string source;                         // where the text comes from: a package, a book; opens every id
  std::string license;                        // stored with every document that is made; may be empty
  std::filesystem::path output;               // one file (.jsonl.zst, .jsonl), or a folder
  uint64_t max_bytes = 0;                     // of text, of one file; 0 = everything
  std::vector<std::filesystem::path> inputs;  // files and folders
};

struct StepReport {
  uint64_t files = 0;                       // that were read
  uint64_t documents = 0;                   // that were written
  uint64_t changed = 0;                     // by a step, of the documents that were written
  uint64_t text_bytes = 0;                  // of the documents that were written
  std::map<std::string, uint64_t> removed;  // texts left out, by rule
  bool reached_max_bytes = false;           // the rest was not looked at
  uint64_t files_before = 0;                // of `files`: finished by an earlier process
};

struct InputFile {
  std::string name;  // <source>/<path inside the input>: opens the ids of its documents and names its output
  std::filesystem::path path;
};

/// A step: which files it reads, how a file becomes documents, and what happens to each of them.
struct StepRow {
  const char* name;
  const char* about;     // a line of help
  const char* example;   // a whole command
  const char* expected;  // "a folder, or a file of ...": what an input must be
  bool (*reads)(const std::filesystem::path& path);
  /// Takes the documents of one file in their order. UserError::bad_file and IoError leave the file out.
  void (*read)(const InputFile& file, const StepOptions& options, const std::function<void(Document&&)>& take);
  /// A fresh chain for one output file; `so_far` is what has been written to it.
  std::vector<MapStep> (*chain)(const StepOptions& options, const StepReport& so_far);
};

/// Into one file: all inputs in the order of their names, memory holds one at a time. With max_bytes files are visited
/// in the order of their names' sample_hash, so that a part of a tree is a sample of all of it and of its held-out
/// documents; what would not fit is passed over, 99% is full, and the documents are sorted by id.
/// Into a folder: one output file for each input file, which is its own mark of completion:
///   documents/<name>.jsonl.zst         what is left, the last to appear
///   removed/<step>/<name>.jsonl.zst    {"id", "source", "rule", "value"?, "threshold"?} of each that went
///   stats/<step>/<name>.json           what the report counts, and of which input and options; stats/<step>.json: sums
/// A finished file is not done again, so that a kill costs the file at hand; one whose input or options have changed
/// is refused. A chain sees one output file, so equal texts are found inside of it alone.
/// Links are not followed: documentation packages link pages to each other and to places outside. A file that cannot
/// be read or parsed is warned about and counted. The same inputs give the same bytes. Throws Stopped between two
/// documents. UserError::recipe for a missing source, output or input, for two files of one name and for max_bytes with
/// a folder; UserError::bad_file for an input that is missing and when no document is left; UserError::folder_locked.
StepReport run_step(const StepRow& step, const StepOptions& options);

}  // namespace coppice
