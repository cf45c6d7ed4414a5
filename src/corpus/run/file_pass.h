// One source file in one pass: read, sent through the chain, noted by group steps, written.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "src/corpus/run/corpus_folder.h"
#include "src/corpus/run/corpus_settings.h"
#include "src/corpus/run/passes.h"
#include "src/corpus/run/step_times.h"

namespace coppice {

/// How source files become documents; read_source_file unless said.
using ReadFile =
    std::function<SourceReport(const SourceFile& file, const SourceOptions& source, const ReadLimits& limits,
                               const std::function<void(Document&&)>& take, uint64_t* bytes_read)>;

/// The place of a group step's own, and the number of a source file in it, if it looks at it.
struct GroupFiles {
  GroupPlace place;
  std::vector<int64_t> number_of;  // -1: of another source
};

/// What the files of a pass have in common.
struct PassWork {
  const CorpusSettings& settings;
  const std::vector<SourceFile>& files;
  const std::vector<Pass>& passes;
  size_t pass;
  const CorpusFolder& folder;
  const std::vector<GroupFiles>& groups;  // of each step; places of group steps alone
  bool keep_removed_text;
  ReadFile read;
  std::atomic<bool> abandoned = false;  // by a thread that has failed
  mutable StepTimes times = {};         // of those that are done
};

/// Runs files one behind another in one thread.
class FilePass {
 public:
  explicit FilePass(const PassWork& work);
  /// `bytes_read` grows by the size of what is read. Throws Stopped between two documents.
  void run(uint32_t file, std::atomic<uint64_t>& bytes_read);

 private:
  class Run;
  const PassWork& work_;
  std::vector<std::unique_ptr<DocumentLook>> looks_;  // of the mapped steps
};

/// Of the hash of an id alone: one document in a hundred is measured by every rule.
bool is_measured_sample(std::string_view id);

/// The columns of the values that a pass measures, in the order of its chain.
std::vector<std::string> value_columns(const std::vector<CorpusStep>& steps, const Pass& pass);

}  // namespace coppice
