// `coppice data run`: from sources to a corpus, by any number of tasks over one folder, which meet in files only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "src/corpus/run/corpus_settings.h"
#include "src/corpus/run/counts.h"
#include "src/corpus/run/file_pass.h"
#include "src/corpus/run/task_share.h"

namespace coppice {

struct CorpusRequest {
  std::filesystem::path out;
  TaskShare share;
  bool wait = false;               // for other tasks, instead of ending with 75
  bool keep_work = false;          // signatures, bands, hits and the documents between passes
  bool keep_removed_text = false;  // in removed/
  std::function<std::vector<SourceFile>(const std::vector<SourceOptions>& sources)> list = list_source_files;
  ReadFile read = read_source_file;
};

struct CorpusOutcome {
  bool complete_before = false;  // nothing was left to do
  uint64_t files = 0;
  Amount documents;  // that the corpus holds
};

/// Does what is left to do for this task, and returns when the corpus is complete, its report written by this task or
/// another. Of a task that must wait for others, and on a signal: Stopped, 75. UserError::folder_locked for a second
/// task of the same number, UserError::bad_file for an input or settings that have changed since, and for what a source
/// holds; UserError::recipe for a folder in a source's folder or around it. A corpus that is complete stays so when all
/// files of a source are gone (list_input_files).
///   documents/<file>.jsonl.zst         what is left; the file is its own mark of completion
///   removed/<step>/<file>.jsonl.zst    what went, and why
///   values/<file>.h5                   what the rules have measured
///   stats/<step>.json, report.json, report.md, sources.json, SOURCES.md
///   work/                              removed when all is complete
/// The same bytes for any number of tasks and threads and whatever was killed on the way.
CorpusOutcome run_corpus(const CorpusSettings& settings, const CorpusRequest& request);

}  // namespace coppice
