#include "src/corpus/run/corpus_folder.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <string_view>
#include <system_error>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/corpus/report/complete_corpus.h"
#include "src/corpus/run/identity_difference.h"
#include "src/text/documents_folder.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFileFormat = "coppice.corpus_file";
constexpr int kVersion = 1;
constexpr std::string_view kTemporary = ".tmp-";

[[noreturn]] void refuse(const fs::path& where, const std::string& difference) {
  throw UserError::bad_file(where.string(), fmt::format("the corpus was made otherwise: {}; choose another folder, or "
                                                        "remove this corpus to have it made again",
                                                        difference));
}

}  // namespace

Json corpus_identity(const CorpusSettings& settings, const std::vector<SourceFile>& files, bool keep_removed_text) {
  Json sources = Json::array(), steps = Json::array(), names = Json::array();
  for (const SourceOptions& source : settings.sources)
    sources.push_back({{"name", source.name},
                       {"kind", source.kind},
                       {"text", source.text},
                       {"priority", source.priority},
                       {"stages", source.stages},
                       {"license", source.license},
                       {"public", source.is_public},
                       {"homepage", source.homepage},
                       {"date", source.date},
                       {"pii", source.pii}});
  for (const CorpusStep& step : settings.steps)
    steps.push_back({{"name", step.name},
                     {"kind", step.kind},
                     {"only", step.only},
                     {"options", options_json(step.options)},
                     {"inputs", step.step->inputs()},
                     {"fingerprint", step.fingerprint}});
  for (const SourceFile& file : files) names.push_back({file.name, file.kind});
  return {{"format", kCorpusRunFormat},
          {"version", kVersion},
          {"sources", std::move(sources)},
          {"files", files.size()},
          {"names_sha256", fingerprint(names)},
          {"steps", std::move(steps)},
          {"values", settings.values},
          {"doc_timeout_s", settings.doc_timeout_s},
          {"keep_removed_text", keep_removed_text}};
}

CorpusFolder::CorpusFolder(fs::path root, Json identity, size_t num_passes)
    : root_(std::move(root)),
      identity_(std::move(identity)),
      fingerprint_(fingerprint(identity_)),
      num_passes_(num_passes) {}

fs::path CorpusFolder::documents(size_t pass, const SourceFile& file) const {
  return pass + 1 == num_passes_ ? root_ / "documents" / (file.output + ".jsonl.zst")
                                 : work() / fmt::format("pass{}", pass + 1) / (file.output + ".documents");
}
fs::path CorpusFolder::removed(const CorpusStep& step, const SourceFile& file) const {
  return root_ / "removed" / step.name / (file.output + ".jsonl.zst");
}
fs::path CorpusFolder::rows(size_t pass, const SourceFile& file) const {
  return work() / fmt::format("pass{}", pass + 1) / (file.output + ".values");
}
fs::path CorpusFolder::values(const SourceFile& file) const { return root_ / "values" / (file.output + ".h5"); }
fs::path CorpusFolder::mark(const CorpusStep& step, const std::string& name) const {
  return work() / "marks" / step.name / name;
}
fs::path CorpusFolder::record_path(size_t pass, const SourceFile& file) const {
  return work() / fmt::format("pass{}", pass + 1) / (file.output + ".json");
}

void CorpusFolder::compare(const Json& made_of, const fs::path& where) const {
  if (made_of != identity_) refuse(where, identity_difference(made_of, identity_));
}

void CorpusFolder::open() {
  make_folder(work());
  const fs::path path = work() / "corpus.json";
  if (!fs::exists(path)) {
    write_file_atomically(path, seal(identity_));
  }
  const Json made_of = read_sealed(path, kCorpusRunFormat, kVersion);
  compare(made_of, path);
}

void CorpusFolder::remove_leftovers(const std::vector<CorpusStep>& steps,
                                    const std::vector<const SourceFile*>& files) const {
  std::set<fs::path> outputs;
  for (const SourceFile* file : files) {
    for (size_t pass = 0; pass < num_passes_; ++pass)
      outputs.insert({documents(pass, *file), rows(pass, *file), record_path(pass, *file)});
    for (const CorpusStep& step : steps) outputs.insert(removed(step, *file));
    outputs.insert(values(*file));
  }
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (const char* below : {"work", "documents", "removed", "values"})
    for (fs::recursive_directory_iterator entry(root_ / below, error), end; !error && entry != end;
         entry.increment(error)) {
      const std::string name = entry->path().filename();
      const size_t dash = name.rfind('-');  // .tmp-<name>-<process>
      if (name.starts_with(kTemporary) && dash >= kTemporary.size() &&
          outputs.contains(entry->path().parent_path() / name.substr(kTemporary.size(), dash - kTemporary.size())))
        leftovers.push_back(entry->path());
    }
  for (const fs::path& leftover : leftovers) fs::remove(leftover, error);
}

bool CorpusFolder::is_complete(const std::vector<SourceFile>& files) const {
  if (!fs::exists(report())) return false;
  const Json json = read_sealed(report(), kCorpusReportFormat, kVersion);
  const Json& made_of = object_at(json, "made_of", report().string());
  Json with_these = made_of;
  for (const char* key : {"files", "names_sha256"}) with_these[key] = identity_[key];
  compare(with_these, report());
  if (made_of == identity_) return true;
  std::vector<std::string> before, now;
  for (const SourceFile& file : open_complete_corpus(root_).files) before.push_back(file.name);
  for (const SourceFile& file : files) now.push_back(file.name);
  refuse(report(), files_difference(before, now));
}

FileRecord CorpusFolder::record(size_t pass, const SourceFile& file) const {
  const fs::path path = record_path(pass, file);
  const std::string where = path.string();
  const Json json = read_sealed(path, kFileFormat, kVersion);
  if (const std::string made = string_at(json, "fingerprint", where); made != fingerprint_)
    throw UserError::bad_file(documents(pass, file).string(),
                              fmt::format("was made by settings of fingerprint {}, expected {}; choose another "
                                          "folder, or remove this corpus to have it made again",
                                          made, fingerprint_));
  const Json& input = object_at(json, "input", where);
  return {.input = {unsigned_at(input, "bytes", where), string_at(input, "sha256", where)},
          .counts = file_counts_from(object_at(json, "counts", where), where)};
}

void CorpusFolder::write_record(size_t pass, const SourceFile& file, const FileRecord& record) const {
  const Json json = {{"format", kFileFormat},
                     {"version", kVersion},
                     {"file", file.name},
                     {"pass", pass + 1},
                     {"fingerprint", fingerprint_},
                     {"input", {{"bytes", record.input.bytes}, {"sha256", record.input.sha256}}},
                     {"counts", to_json(record.counts)}};
  make_folder(record_path(pass, file).parent_path());
  write_file_atomically(record_path(pass, file), seal(json));
}

void CorpusFolder::check_input(const SourceFile& file, const InputIdentity& input, const fs::path& mark) const {
  constexpr int64_t kCoarseClock_s = 2;  // time stamps of some file systems are as coarse
  struct stat made = {};
  const bool is_made = ::stat(mark.c_str(), &made) == 0;
  const auto is_older = [&](const SourceFile& one) {
    struct stat source = {};
    return ::stat(one.path.c_str(), &source) == 0 && source.st_ctime + kCoarseClock_s < made.st_mtime;
  };
  const bool is_untouched = file.members.empty() ? is_older(file) : std::ranges::all_of(file.members, is_older);
  if (is_made && is_untouched && stored_bytes(file) == input.bytes) return;
  const InputIdentity now = identify(file);
  if (now.bytes != input.bytes || now.sha256 != input.sha256)
    throw UserError::bad_file(
        mark.string(),
        fmt::format("was made of {} with {} bytes and SHA-256 {}, which now has {} and {}; choose another "
                    "folder, or remove this corpus to have it made again",
                    file.path.string(), input.bytes, input.sha256, now.bytes, now.sha256));
}

InputIdentity identify(const SourceFile& file) {
  if (file.members.empty()) return {.bytes = stored_bytes(file), .sha256 = sha256_file(file.path)};
  std::string all;
  for (const SourceFile& member : file.members)
    all += fmt::format("{}\t{}\t{}\n", member.name, stored_bytes(member), sha256_file(member.path));
  return {.bytes = stored_bytes(file), .sha256 = sha256_hex(all)};
}

}  // namespace coppice
