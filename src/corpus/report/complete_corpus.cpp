#include "src/corpus/report/complete_corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/nearest.h"
#include "src/corpus/run/corpus_report.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

Amount amount_at(const Json& object, const char* key, const std::string& where) {
  const Json& amount = object_at(object, key, where);
  return {unsigned_at(amount, "documents", where), unsigned_at(amount, "text_bytes", where)};
}

std::map<std::string, uint64_t> counts_at(const Json& object, const char* key, const std::string& where) {
  std::map<std::string, uint64_t> counts;
  const Json& list = object_at(object, key, where);
  for (const auto& [name, count] : list.items()) counts[name] = unsigned_at(list, name.c_str(), where);
  return counts;
}

double limit_at(const Json& object, const char* key, double absent, const std::string& where) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? absent : number_at(object, key, where);
}

std::vector<std::string> lines_at(const Json& object, const char* key, const std::string& where) {
  std::vector<std::string> lines;
  for (const Json& line : array_at(object, key, where))
    lines.push_back(line.is_string() ? line.get<std::string>() : line.dump());
  return lines;
}

ToldRule read_rule(const Json& json, const std::string& where) {
  constexpr double kNoLimit = std::numeric_limits<double>::infinity();
  ToldRule rule{
      .rule = {string_at(json, "rule", where), limit_at(json, "least", -kNoLimit, where),
               limit_at(json, "most", kNoLimit, where)},
      .counts = {amount_at(json, "first", where), amount_at(json, "alone", where), amount_at(json, "would", where)}};
  const Json& sources = object_at(json, "first_by_source", where);
  for (const auto& [source, amount] : sources.items())
    rule.first_by_source[source] = amount_at(sources, source.c_str(), where);
  return rule;
}

ToldStep read_step(const Json& json, const std::string& where) {
  ToldStep step{.name = string_at(json, "step", where),
                .kind = string_at(json, "kind", where),
                .fingerprint = string_at(json, "fingerprint", where),
                .seen = amount_at(json, "seen", where),
                .kept = amount_at(json, "kept", where),
                .changed = unsigned_at(json, "changed", where),
                .measured = unsigned_at(json, "measured", where),
                .counted = counts_at(json, "counts", where)};
  for (const Json& rule : array_at(json, "rules", where)) step.rules.push_back(read_rule(rule, where));
  const Json& sources = object_at(json, "by_source", where);
  for (const auto& [source, counts] : sources.items())
    step.by_source[source] = {.seen = amount_at(counts, "seen", where), .kept = amount_at(counts, "kept", where)};
  return step;
}

void read_files(CompleteCorpus& corpus) {
  const fs::path path = corpus.root / "sources.json", inputs = corpus.root / kInputsName;
  const std::string where = path.string();
  Json paths = Json::object();
  if (fs::exists(inputs)) {
    const Json json = read_sealed(inputs, kInputsFormat, 1);
    paths = object_at(json, "paths", inputs.string());
  }
  const Json json = read_sealed(path, "coppice.corpus_sources", 1);
  for (const Json& source : array_at(json, "sources", where)) {
    const std::string name = string_at(source, "name", where);
    const auto found =
        std::ranges::find_if(corpus.sources, [&](const auto& told) { return told.options.name == name; });
    if (found == corpus.sources.end())
      throw UserError::bad_file(where, fmt::format("names the source '{}', which report.json does not", name));
    for (const Json& file : array_at(source, "files", where)) {
      SourceFile& told = corpus.files.emplace_back();
      told.name = string_at(file, "name", where);
      told.kind = string_at(file, "kind", where);
      told.output = string_at(file, "output", where);
      told.source = static_cast<uint32_t>(found - corpus.sources.begin());
      if (paths.contains(told.name)) told.path = string_at(paths, told.name.c_str(), inputs.string());
    }
  }
  std::ranges::sort(corpus.files, {}, &SourceFile::name);
}

template <class Named, class Name>
const Named& find_named(const std::vector<Named>& list, std::string_view name, const Name& name_of, const char* what,
                        std::string_view where) {
  std::vector<std::string> names;
  for (const Named& item : list) {
    if (name_of(item) == name) return item;
    names.push_back(name_of(item));
  }
  throw UserError::recipe(where, names.empty()
                                     ? fmt::format("got the {} '{}', but there is none", what, printable(name))
                                     : fmt::format("got the {} '{}', which there is not; did you mean '{}'?", what,
                                                   printable(name), nearest(std::string(name), names)));
}

}  // namespace

bool ToldRule::has_threshold() const {
  return std::isfinite(rule.least) || (std::isfinite(rule.most) && rule.most != 0);
}

const ToldStep& CompleteCorpus::step(std::string_view name, std::string_view where) const {
  return find_named(
      steps, name, [](const ToldStep& step) { return step.name; }, "step", where);
}
const ToldRule& CompleteCorpus::rule(const ToldStep& step, std::string_view name, std::string_view where) const {
  return find_named(
      step.rules, name, [](const ToldRule& rule) { return rule.rule.name; }, "rule", where);
}
fs::path CompleteCorpus::documents(const SourceFile& file) const {
  return root / "documents" / (file.output + ".jsonl.zst");
}
fs::path CompleteCorpus::removed(const ToldStep& step, const SourceFile& file) const {
  return root / "removed" / step.name / (file.output + ".jsonl.zst");
}
fs::path CompleteCorpus::values(const SourceFile& file) const { return root / "values" / (file.output + ".h5"); }
fs::path CompleteCorpus::left_by(const ToldStep& step, std::string_view name) const {
  return root / "stats" / "groups" / step.name / name;
}

CompleteCorpus complete_corpus(const fs::path& root, const Json& report) {
  const std::string where = (root / "report.json").string();
  CompleteCorpus corpus{.root = root,
                        .made_of = object_at(report, "made_of", where),
                        .in = amount_at(report, "in", where),
                        .out = amount_at(report, "out", where),
                        .alarms = lines_at(report, "alarms", where),
                        .warnings = lines_at(report, "warnings", where)};
  for (const Json& json : array_at(report, "sources", where)) {
    ToldSource source{.files = unsigned_at(json, "files", where),
                      .records = unsigned_at(json, "records", where),
                      .in = amount_at(json, "in", where),
                      .out = amount_at(json, "out", where),
                      .passed = counts_at(json, "passed", where),
                      .bad = counts_at(json, "bad", where)};
    source.options.name = string_at(json, "source", where);
    for (const Json& made : array_at(corpus.made_of, "sources", where)) {
      if (string_at(made, "name", where) != source.options.name) continue;
      source.options.text = string_at(made, "text", where);
      source.options.license = string_at(made, "license", where);
    }
    corpus.sources.push_back(std::move(source));
  }
  for (const Json& step : array_at(report, "steps", where)) corpus.steps.push_back(read_step(step, where));
  read_files(corpus);
  return corpus;
}

CompleteCorpus open_complete_corpus(const fs::path& root) {
  const fs::path path = root / "report.json";
  if (!fs::exists(path))
    throw UserError::bad_file(root.string(), fs::exists(root / "work") ? "the corpus is not complete; run coppice data "
                                                                         "run again to finish it"
                                                                       : "holds no corpus: no report.json");
  return complete_corpus(root, read_sealed(path, "coppice.corpus", 1));
}

std::string limits_text(const Rule& rule) {
  std::string text;
  if (std::isfinite(rule.least)) text = fmt::format("< {}", rule.least);
  if (std::isfinite(rule.most)) text += fmt::format("{}> {}", text.empty() ? "" : ", ", rule.most);
  return text;
}

}  // namespace coppice
