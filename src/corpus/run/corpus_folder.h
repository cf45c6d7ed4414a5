// The folder of a corpus: where everything lies, what is finished, and of which inputs and settings it was made.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/corpus/run/corpus_settings.h"
#include "src/corpus/run/counts.h"

namespace coppice {

/// What the bytes of a corpus depend on, besides the content of its files.
Json corpus_identity(const CorpusSettings& settings, const std::vector<SourceFile>& files, bool keep_removed_text);

struct InputIdentity {
  uint64_t bytes = 0;
  std::string sha256;
};

/// One file of one pass, finished.
struct FileRecord {
  InputIdentity input;  // the source file
  FileCounts counts;
};

class CorpusFolder {
 public:
  CorpusFolder(std::filesystem::path root, Json identity, size_t num_passes);

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path work() const { return root_ / "work"; }
  /// What a pass leaves of a file, the last of its outputs to appear: its mark of completion.
  std::filesystem::path documents(size_t pass, const SourceFile& file) const;
  std::filesystem::path removed(const CorpusStep& step, const SourceFile& file) const;
  std::filesystem::path rows(size_t pass, const SourceFile& file) const;
  std::filesystem::path values(const SourceFile& file) const;
  std::filesystem::path group(const CorpusStep& step) const { return work() / "groups" / step.name; }
  /// Empty files that say that something is done.
  std::filesystem::path mark(const CorpusStep& step, const std::string& name) const;
  std::filesystem::path report() const { return root_ / "report.json"; }
  const Json& identity() const { return identity_; }
  const std::string& identity_sha256() const { return fingerprint_; }

  /// Makes work/ and writes what it is made of, or compares with what is there: UserError::bad_file naming what
  /// differs.
  void open();
  /// Removes what a kill has left of the outputs of these files; other tasks are at work on others.
  void remove_leftovers(const std::vector<CorpusStep>& steps, const std::vector<const SourceFile*>& files) const;
  /// The same of a report.json that is there, made of these files; false without one.
  bool is_complete(const std::vector<SourceFile>& files) const;
  bool finished(size_t pass, const SourceFile& file) const { return std::filesystem::exists(documents(pass, file)); }
  /// Of a finished file. UserError::bad_file for a record that is damaged or of another input.
  FileRecord record(size_t pass, const SourceFile& file) const;
  void write_record(size_t pass, const SourceFile& file, const FileRecord& record) const;
  /// Refuses a source file that is no longer what the record says. A file that nobody has touched since `mark` appeared
  /// is not read for it.
  void check_input(const SourceFile& file, const InputIdentity& input, const std::filesystem::path& mark) const;

 private:
  std::filesystem::path record_path(size_t pass, const SourceFile& file) const;
  void compare(const Json& made_of, const std::filesystem::path& where) const;

  std::filesystem::path root_;
  Json identity_;
  std::string fingerprint_;
  size_t num_passes_;
};

/// Of a bundle: of its members' names, sizes and contents.
InputIdentity identify(const SourceFile& file);

}  // namespace coppice
