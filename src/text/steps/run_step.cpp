#include "src/text/steps/run_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/text/document_writer.h"
#include "src/text/file_endings.h"
#include "src/text/steps/step_folder.h"
#include "src/text/steps/step_inputs.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// One output file under way: the documents of its input files go through a chain of their own.
class StepOutput {
 public:
  StepOutput(const StepRow& step, const StepOptions& options, const fs::path& path, RemovalWriter* removals)
      : step_(step), options_(options), writer_(path), removals_(removals), chain_(step.chain(options, report_)) {}

  /// One that cannot be read is named and left out: a large tree has a few.
  void add(const InputFile& file) {
    ++report_.files;
    std::vector<Document> collected;
    bool reading = true;
    const auto take = [&](Document&& document) {
      reading = false;  // what fails from here on is no fault of the file
      if (is_sample()) {
        collected.push_back(std::move(document));
      } else {
        look(std::move(document));
      }
      reading = true;
    };
    try {
      step_.read(file, options_, take);
    } catch (const Error& error) {
      if (!reading || (error.code() != ExitCode::bad_file && error.code() != ExitCode::io)) throw;
      log_warning(error.what());
      remove({.id = file.name, .source = options_.source, .removed = {{.rule = "unreadable"}}});
    }
    std::ranges::sort(collected, comes_first_by_hash, &Document::id);
    for (Document& document : collected) look(std::move(document));
  }

  /// Writes what a sample has kept; what commit() is still to come for.
  const StepReport& close() {
    std::ranges::sort(kept_, {}, &Document::id);
    for (const Document& document : kept_) writer_.write(document);
    return report_;
  }
  void commit() { writer_.commit(); }
  const StepReport& report() const { return report_; }

 private:
  bool is_sample() const { return options_.max_bytes > 0; }

  void remove(const Document& document) {
    ++report_.removed[document.removed.front().rule];
    if (removals_ != nullptr) removals_->write(document);
  }

  void look(Document&& document) {
    if (report_.reached_max_bytes) return;
    if (stop_requested()) throw Stopped("");
    bool changed = false;
    for (const MapStep& step : chain_) {
      const Decision decision = step(document);
      changed |= decision.kind == Decision::Kind::change;
      if (decision.kind != Decision::Kind::drop) continue;
      document.removed.push_back(decision.removal);
      return remove(document);
    }
    ++report_.documents;
    report_.changed += changed;
    report_.text_bytes += document.text.size();
    if (!is_sample()) return writer_.write(document);
    report_.reached_max_bytes = report_.text_bytes >= options_.max_bytes - options_.max_bytes / 100;
    kept_.push_back(std::move(document));
  }

  const StepRow& step_;
  const StepOptions& options_;
  DocumentWriter writer_;
  RemovalWriter* removals_;
  StepReport report_;
  std::vector<MapStep> chain_;  // sees report_
  std::vector<Document> kept_;  // of a sample: max_bytes of text at most
};

void add(StepReport& sum, const StepReport& part) {
  sum.files += part.files;
  sum.documents += part.documents;
  sum.changed += part.changed;
  sum.text_bytes += part.text_bytes;
  sum.files_before += part.files_before;
  for (const auto& [rule, count] : part.removed) sum.removed[rule] += count;
}

class StepProgress {
 public:
  StepProgress(const StepRow& step, size_t files) : line_(step.name, files, "file") {}
  void update(const StepReport& report) {
    line_.update(report.files, {{"", format_count(static_cast<double>(report.documents)) + " documents"},
                                {"", format_bytes(static_cast<double>(report.text_bytes))}});
  }

 private:
  Progress line_;
};

[[noreturn]] void throw_empty(const StepOptions& options) {
  throw UserError::bad_file(options.inputs.front().string(), "holds no document with text");
}

StepReport write_one_file(const StepRow& step, const StepOptions& options, std::span<const InputFile> files) {
  if (options.output.has_parent_path()) make_folder(options.output.parent_path());
  StepOutput output(step, options, options.output, nullptr);
  StepProgress progress(step, files.size());
  try {
    for (const InputFile& file : files) {
      if (stop_requested()) throw Stopped("");
      if (output.report().reached_max_bytes) break;
      output.add(file);
      progress.update(output.report());
    }
  } catch (const Stopped&) {
    throw Stopped(
        fmt::format("stopped after {} files; nothing was written, run again to start over", output.report().files));
  }
  const StepReport& report = output.close();
  if (report.documents == 0) throw_empty(options);
  output.commit();
  return report;
}

StepReport write_finished_file(const StepRow& step, const StepOptions& options, StepFolder& folder,
                               const InputFile& file) {
  RemovalWriter removals(folder.removed(file));
  StepOutput output(step, options, folder.documents(file), &removals);
  output.add(file);
  removals.commit();
  folder.write_stats(file, output.close());
  output.commit();
  return output.report();
}

StepReport write_folder(const StepRow& step, const StepOptions& options, std::span<const InputFile> files) {
  StepFolder folder(options.output, step, options);
  StepProgress progress(step, files.size());
  StepReport sum;
  try {
    for (const InputFile& file : files) {
      if (stop_requested()) throw Stopped("");
      folder.prepare(file);
      const std::optional<StepReport> before = folder.finished(file);
      add(sum, before ? *before : write_finished_file(step, options, folder, file));
      progress.update(sum);
    }
  } catch (const Stopped&) {
    throw Stopped(
        fmt::format("stopped after {} of {} files, which are kept; run again to go on", sum.files, files.size()));
  }
  if (sum.documents == 0) throw_empty(options);
  folder.write_stats(sum);
  return sum;
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

StepReport run_step(const StepRow& step, const StepOptions& options) {
  if (options.source.empty()) throw UserError::recipe("--source", "expected a name for where the text comes from");
  if (options.output.empty())
    throw UserError::recipe("--output", "expected a file name ending in .jsonl.zst, or a folder");
  if (options.inputs.empty())
    throw UserError::recipe("", fmt::format("expected at least one file or folder to {}", step.name));
  const bool one_file = names_a_file(options.output), sample = options.max_bytes > 0;
  if (sample && !one_file)
    throw UserError::recipe("--max-bytes", "counts the text of one file; expected --output to end in .jsonl.zst");
  const std::vector<InputFile> files = list_inputs(step, options, sample);
  const StepReport report = one_file ? write_one_file(step, options, files) : write_folder(step, options, files);

  std::string left_out;
  for (const auto& [rule, count] : report.removed)
    left_out += fmt::format("{} {} {}", left_out.empty() ? "; left out:" : ",", count, rule);
  log_info(fmt::format("{}: {} documents, {} of text from {} files{}{}", options.output.string(), report.documents,
                       format_bytes(static_cast<double>(report.text_bytes)), report.files,
                       report.files_before > 0 ? fmt::format(" ({} were finished before)", report.files_before) : "",
                       left_out));
  return report;
}

}  // namespace coppice
