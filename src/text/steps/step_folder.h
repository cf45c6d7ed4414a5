// The output folder of a step: a file of documents, of removals and of counts for each input file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "src/base/files.h"
#include "src/base/json.h"
#include "src/text/byte_sink.h"
#include "src/text/documents.h"
#include "src/text/steps/run_step.h"

namespace coppice {

/// Removed documents, a line each: {"id", "source", "rule", "value"?, "threshold"?}. Without any there is no file.
class RemovalWriter {
 public:
  explicit RemovalWriter(std::filesystem::path path) : path_(std::move(path)) {}
  void write(const Document& removed);
  void commit();

 private:
  std::filesystem::path path_;
  std::unique_ptr<ByteSink> sink_;
};

class StepFolder {
 public:
  /// Locked against other processes; UserError::folder_locked.
  StepFolder(std::filesystem::path root, const StepRow& step, const StepOptions& options);
  /// What an earlier process counted of a file that it finished. UserError::bad_file when that was another content or
  /// came of other options.
  std::optional<StepReport> finished(const InputFile& file) const;
  std::filesystem::path documents(const InputFile& file) const;
  std::filesystem::path removed(const InputFile& file) const;
  /// Makes the folders of a file's outputs and removes what a kill has left in them.
  void prepare(const InputFile& file);
  /// Before the file of documents appears, which completes it.
  void write_stats(const InputFile& file, const StepReport& report) const;
  /// Of all files.
  void write_stats(const StepReport& report) const;

 private:
  std::filesystem::path stats(const InputFile& file) const;
  Json options() const;  // what every file is made with
  Json identity(const InputFile& file) const;

  std::filesystem::path root_;
  std::string step_, source_, license_;
  FolderLock lock_;
  std::set<std::filesystem::path> prepared_;
};

}  // namespace coppice
