#include "recipes/language/sources.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "recipes/language/recipe.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "sources.json";
constexpr const char* kFormat = "coppice.sources";
constexpr const char* kShape = "shape";
constexpr const char* kTokenizer = "tokenizer";  // its fingerprint
constexpr const char* kVocabSize = "vocab_size";

void check_path(const fs::path& path, const std::string& who, const char* why) {
  if (is_gone(path))
    throw UserError::bad_file(path.string(), fmt::format("is gone, and {} needs it: {}; bring it back", who, why));
}

/// What a stage reads from outside while it runs.
std::vector<OutsideSource> needs_of(const Recipe& recipe, const Stage& stage) {
  const auto needs = kind_of(stage).needs;
  return needs != nullptr ? needs(recipe, stage) : std::vector<OutsideSource>();
}

}  // namespace

bool is_gone(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) return true;
  return fs::is_directory(status) && fs::is_empty(path, error) && !error;
}

Sources::Sources(fs::path run_root, First first) : first_(first) {
  if (!run_root.empty()) read(run_root);
}

void Sources::open(const fs::path& default_root) {
  if (!opened_) read(default_root);
}

void Sources::read(const fs::path& run_root) {
  opened_ = true;
  std::error_code error;
  if (!fs::exists(run_root / kFile, error)) return;
  const std::string file = (run_root / kFile).string();
  const Json record = read_sealed(run_root / kFile, kFormat, 1);
  for (const auto& [path, answers] : object_at(record, "sources", file).items()) {
    if (!answers.is_object()) throw UserError::bad_file(file, fmt::format("'{}': an object expected", printable(path)));
    for (const auto& [what, answer] : answers.items()) record_[path][what] = answer;
  }
}

Json Sources::look(const std::string& what, const fs::path& path, const std::function<Json()>& read) {
  std::map<std::string, Json>& seen = seen_[path.generic_string()];
  if (const auto found = seen.find(what); found != seen.end()) return found->second;
  const bool is_recorded = recorded(what, path), gone = is_recorded && is_gone(path);
  if (gone) gone_.insert(path.string());
  const bool by_record = gone || (is_recorded && first_ == First::record);
  return seen[what] = by_record ? record_[path.generic_string()][what] : read();
}

std::string Sources::look_text(const std::string& what, const fs::path& path,
                               const std::function<std::string()>& read) {
  return look(what, path, [&] { return Json(read()); }).get<std::string>();
}

const Tokenizer& Sources::tokenizer(const fs::path& path) {
  const auto found = tokenizers_.find(path);
  return found != tokenizers_.end() ? found->second : tokenizers_.emplace(path, given_tokenizer(path)).first->second;
}

bool Sources::recorded(const std::string& what, const fs::path& path) const {
  const auto found = record_.find(path.generic_string());
  return found != record_.end() && found->second.contains(what);
}

bool Sources::holds(const fs::path& path) const { return record_.contains(path.generic_string()) && is_gone(path); }

void Sources::save(const fs::path& run_root) const {
  Json sources = Json::object();
  for (const auto* some : {&record_, &seen_})
    for (const auto& [path, answers] : *some)
      for (const auto& [what, answer] : answers) sources[path][what] = answer;
  write_file_atomically(run_root / kFile, seal({{"format", kFormat}, {"version", 1}, {"sources", sources}}));
}

GivenShape shape_of(Sources& sources, const fs::path& path) {
  const Json shape = sources.look(kShape, path, [&] {
    const GivenShape read = given_shape(path);
    return Json{{"model", to_json(read.config)}, {"attention_window", read.attention_window}};
  });
  return {.config = config_from_json(shape.at("model"), kFile),
          .attention_window = shape.at("attention_window").get<int64_t>()};
}

bool has_shape(const Sources& sources, const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error) || is_gguf(path) || sources.recorded(kShape, path);
}

std::string tokenizer_fingerprint(Sources& sources, const fs::path& path) {
  return sources.look_text(kTokenizer, path, [&] { return sources.tokenizer(path).fingerprint(); });
}

int64_t tokenizer_vocab_size(Sources& sources, const fs::path& path) {
  if (is_gone(path) && !sources.recorded(kVocabSize, path)) return 0;
  return sources.look(kVocabSize, path, [&] { return Json(sources.tokenizer(path).vocab_size()); }).get<int64_t>();
}

void say_what_is_gone(const Recipe& recipe) {
  constexpr size_t kShown = 6;
  std::vector<std::string> paths;  // without what lies in a folder that is gone as a whole
  for (const std::string& path : recipe.sources->gone())
    if (paths.empty() || !path.starts_with(paths.back() + "/")) paths.push_back(path);
  if (paths.empty()) return;
  const size_t more = paths.size() - std::min(paths.size(), kShown);
  paths.resize(paths.size() - more);
  log_warning(
      printable(fmt::format("no longer there: {}{}; what this run recorded of {} holds", fmt::join(paths, ", "),
                            more > 0 ? fmt::format(" and {} more", more) : "", paths.size() == 1 ? "it" : "them")));
}

bool goes_by_record(const Recipe& recipe, const Stage& stage) {
  return std::ranges::any_of(needs_of(recipe, stage),
                             [&](const OutsideSource& need) { return recipe.sources->holds(need.path); });
}

void check_there(const Recipe& recipe, const Stage& stage) {
  for (const OutsideSource& need : needs_of(recipe, stage))
    check_path(need.path, fmt::format("stage '{}'", stage.name), need.why);
}

void check_data_there(const Recipe& recipe, const fs::path& data_folder) {
  const auto has = [&](const fs::path& part) { return !data_folder.empty() && fs::exists(data_folder / part); };
  const bool tokenizer = has("tokenizer/tokenizer.model") || has("tokenizer/tokenizer.json"),
             given = !recipe.tokenizer.path.empty();
  if (!tokenizer && given) check_path(recipe.tokenizer.path, "the data", "it is the tokenizer");
  for (const DomainOptions& domain : recipe.data.domains) {
    if (!tokenizer && !given) check_path(domain.path, "the tokenizer", "it is trained on this text");
    if (!has(fs::path("tokens") / domain.name / "manifest.json"))
      check_path(domain.path, fmt::format("domain '{}'", domain.name), "it is not tokenized yet");
  }
}

}  // namespace coppice
