#include "src/text/steps/step_folder.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <system_error>

#include "src/base/errors.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "coppice.step";
constexpr uint64_t kVersion = 1;

Json counts_of(const StepReport& report) {
  return {{"files", report.files},
          {"documents", report.documents},
          {"changed", report.changed},
          {"text_bytes", report.text_bytes},
          {"removed", report.removed}};
}

}  // namespace

void RemovalWriter::write(const Document& removed) {
  const Removal& removal = removed.removed.front();
  if (!sink_) sink_ = std::make_unique<ByteSink>(path_, ByteSink::Coding::zstd);
  nlohmann::ordered_json line = {{"id", removed.id}, {"source", removed.source}, {"rule", removal.rule}};
  if (removal.value) line["value"] = *removal.value;
  if (removal.threshold) line["threshold"] = *removal.threshold;
  sink_->write(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

void RemovalWriter::commit() {
  if (sink_) return sink_->commit();
  std::error_code error;
  fs::remove(path_, error);  // of an attempt that was killed
}

StepFolder::StepFolder(fs::path root, const StepRow& step, const StepOptions& options)
    : root_(std::move(root)),
      step_(step.name),
      source_(options.source),
      license_(options.license),
      lock_((make_folder(root_), root_)) {
  remove_temporaries(root_ / "stats");
}

fs::path StepFolder::documents(const InputFile& file) const { return root_ / "documents" / (file.name + ".jsonl.zst"); }
fs::path StepFolder::removed(const InputFile& file) const {
  return root_ / "removed" / step_ / (file.name + ".jsonl.zst");
}
fs::path StepFolder::stats(const InputFile& file) const { return root_ / "stats" / step_ / (file.name + ".json"); }

Json StepFolder::options() const { return {{"step", step_}, {"source", source_}, {"license", license_}}; }

Json StepFolder::identity(const InputFile& file) const {
  Json of = options();
  try {
    of["input_sha256"] = sha256_file(file.path);
  } catch (const UserError&) {
    of["input_sha256"] = nullptr;  // it cannot be read
  }
  return of;
}

std::optional<StepReport> StepFolder::finished(const InputFile& file) const {
  if (!fs::exists(documents(file))) return std::nullopt;
  const std::string where = stats(file).string();
  const Json record = read_sealed(stats(file), kFormat, kVersion);
  if (const Json now = identity(file); object_at(record, "of", where) != now)
    throw UserError::bad_file(documents(file).string(),
                              fmt::format("was made of {}, expected {}; remove it to have it made again, or choose "
                                          "another folder",
                                          record["of"].dump(), now.dump()));
  const Json& counts = object_at(record, "counts", where);
  StepReport report{.files = unsigned_at(counts, "files", where),
                    .documents = unsigned_at(counts, "documents", where),
                    .changed = unsigned_at(counts, "changed", where),
                    .text_bytes = unsigned_at(counts, "text_bytes", where),
                    .files_before = 1};
  const Json& removed = object_at(counts, "removed", where);
  for (const auto& [rule, count] : removed.items()) report.removed[rule] = unsigned_at(removed, rule.c_str(), where);
  return report;
}

void StepFolder::prepare(const InputFile& file) {
  for (const fs::path& path : {documents(file), removed(file), stats(file)}) {
    if (!prepared_.insert(path.parent_path()).second) continue;
    make_folder(path.parent_path());
    remove_temporaries(path.parent_path());
  }
}

void StepFolder::write_stats(const InputFile& file, const StepReport& report) const {
  const Json record = {
      {"format", kFormat}, {"version", kVersion}, {"of", identity(file)}, {"counts", counts_of(report)}};
  write_file_atomically(stats(file), seal(record));
}

void StepFolder::write_stats(const StepReport& report) const {
  const Json record = {{"format", kFormat}, {"version", kVersion}, {"of", options()}, {"counts", counts_of(report)}};
  write_file_atomically(root_ / "stats" / (step_ + ".json"), seal(record));
}

}  // namespace coppice
