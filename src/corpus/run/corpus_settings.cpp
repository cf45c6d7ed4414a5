#include "src/corpus/run/corpus_settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/amount.h"
#include "src/base/errors.h"
#include "src/base/json.h"
#include "src/base/nearest.h"
#include "src/corpus/run/corpus_rights.h"
#include "src/corpus/sources/path_pattern.h"

namespace coppice {
namespace {

constexpr double kMinMemory = 16e6;

/// A name becomes a folder of the outputs, a column of the values and a word in messages.
void check_name(const std::string& name, const char* what, const std::string& where) {
  const bool plain = !name.empty() && name.size() <= 100 && name.front() != '.' && printable(name) == name &&
                     name.find_first_of("/\\\"") == std::string::npos;
  if (!plain)
    throw UserError::recipe(where, fmt::format("name: got '{}', expected a {}'s name of at most 100 bytes without "
                                               "'/', quotes or a dot in front",
                                               printable(name), what));
}

template <class Named>
void check_unlike(const std::vector<Named>& before, const std::string& name, const char* what,
                  const std::string& where) {
  const auto same = std::ranges::find(before, name, &Named::name);
  if (same != before.end())
    throw UserError::recipe(
        where, fmt::format("name: '{}' is the {} of {} already; give each a name of its own", name, what, same->where));
}

void read_values(CorpusSettings& settings, OptionTable& data) {
  data.read(settings);
  const auto refuse = [&](const char* key, const std::string& got, const std::string& expected) {
    return UserError::recipe(data.where(key), fmt::format("{}: got {}, expected {}", key, got, expected));
  };
  const std::optional<double> memory = parse_amount(settings.memory, kByteUnits);
  if (!memory || *memory < kMinMemory)
    throw refuse("memory", "'" + printable(settings.memory) + "'", "a size from 16MB on such as 4GB");
  settings.memory_bytes = static_cast<uint64_t>(*memory);
  constexpr std::string_view kValues[] = {"all", "sample", "none"};
  const auto found = std::ranges::find(kValues, settings.values);
  if (found == std::end(kValues)) throw refuse("values", "'" + printable(settings.values) + "'", "all, sample or none");
  settings.kept_values = static_cast<CorpusSettings::Values>(found - std::begin(kValues));
  if (!(settings.max_bad_share >= 0 && settings.max_bad_share <= 1))
    throw refuse("max_bad_share", fmt::format("{}", settings.max_bad_share), "a share from 0 to 1");
  if (settings.threads < 0 || settings.threads > 1024)
    throw refuse("threads", fmt::format("{}", settings.threads), "0 to 1024");
  if (!(settings.doc_timeout_s >= 0 && settings.doc_timeout_s <= 1e6))
    throw refuse("doc_timeout_s", fmt::format("{}", settings.doc_timeout_s), "seconds from 0 to 1e6");
}

/// Documents of a corpus bring the limits of their sources with them.
void check_rights(const SourceOptions& source, const std::string& where) {
  for (const SourceRights& rights : corpus_rights(is_pattern(source.path) ? split_pattern(source.path).folder
                                                                          : std::filesystem::path(source.path))) {
    const bool within = !source.stages.empty() && std::ranges::all_of(source.stages, [&](const std::string& stage) {
      return closed_to({rights}, stage) == nullptr;
    });
    if (!rights.stages.empty() && !within)
      throw UserError::recipe(
          where, fmt::format("stages: source '{}' reads documents of {}; expected stages = [\"{}\"], or fewer of them",
                             source.name, closed_text(rights), fmt::join(rights.stages, "\", \"")));
  }
}

void read_source(CorpusSettings& settings, OptionTable table) {
  SourceOptions source;
  table.read(source);
  table.finish();
  source.where = table.where();
  check_name(source.name, "source", table.where("name"));
  check_unlike(settings.sources, source.name, "source", source.where);
  if (source.path.empty())
    throw UserError::recipe(source.where, fmt::format("path: source '{}' names no files", source.name));
  if (!source.pii.empty() && source.pii != "checked elsewhere")
    throw UserError::recipe(table.where("pii"), fmt::format("pii: got '{}', expected \"checked elsewhere\" or nothing",
                                                            printable(source.pii)));
  check_rights(source, table.where("stages"));
  settings.sources.push_back(std::move(source));
}

const StepKind& find_kind(const std::string& kind, const std::string& where, std::span<const StepKind* const> kinds) {
  std::vector<std::string> names;
  for (const StepKind* row : kinds) {
    if (kind == row->kind) return *row;
    names.emplace_back(row->kind);
  }
  throw UserError::recipe(
      where,
      fmt::format("kind: got '{}', expected one of: {}{}", printable(kind), fmt::join(names, ", "),
                  kind.empty() || names.empty() ? "" : fmt::format("; did you mean '{}'?", nearest(kind, names))));
}

void read_step(CorpusSettings& settings, OptionTable table, std::span<const StepKind* const> kinds) {
  CorpusStep step{.where = table.where()};
  table.take("kind", step.kind, "the kind of the step");
  const StepKind& row = find_kind(step.kind, table.where("kind"), kinds);
  step.name = step.kind;
  table.take("name", step.name, "what outputs and reports call the step");
  table.take("only", step.only, "sources that the step looks at; the others pass it by");
  check_name(step.name, "step", table.where("name"));
  check_unlike(settings.steps, step.name, "step", step.where);
  for (const std::string& name : step.only)
    if (std::ranges::find(settings.sources, name, &SourceOptions::name) == settings.sources.end()) {
      std::vector<std::string> names;
      for (const SourceOptions& source : settings.sources) names.push_back(source.name);
      throw UserError::recipe(table.where("only"), fmt::format("only: no source is named '{}'; did you mean '{}'?",
                                                               printable(name), nearest(name, names)));
    }
  step.step = row.read(table);
  table.finish();
  step.rules = step.step->rules();
  for (const Rule& rule : step.rules) check_name(rule.name, "rule", step.where);  // a column of the values, too

  std::vector<std::string> undecided = {"name"};  // what changes no document
  for (const StepOption& option : row.options())
    if (option.mark != Mark::decides) undecided.push_back(option.key);
  step.options = table.in_force(undecided);
  step.fingerprint = fingerprint(Json{{"options", step.options}, {"inputs", step.step->inputs()}});
  settings.steps.push_back(std::move(step));
}

/// What is published again: data.md, "Licences, stages, public data".
void check_public(const CorpusSettings& settings, const SourceOptions& source) {
  if (!source.is_public) return;
  const auto demand = [&](bool given, const char* key) {
    if (!given)
      throw UserError::recipe(
          source.where, fmt::format("{}: the public source '{}' needs licence, homepage and date", key, source.name));
  };
  demand(!source.license.empty() && source.license != "unknown", "license");
  demand(!source.homepage.empty(), "homepage");
  demand(!source.date.empty(), "date");
  const bool masked = std::ranges::any_of(
      settings.steps, [&](const CorpusStep& step) { return step.kind == "pii" && step.looks_at(source); });
  if (!masked && source.pii.empty())
    throw UserError::recipe(source.where,
                            fmt::format("pii: no step looks for personal data in the public source '{}'; add a "
                                        "[[data.step]] with kind = \"pii\", or pii = \"checked elsewhere\"",
                                        source.name));
}

}  // namespace

bool CorpusStep::looks_at(const SourceOptions& source) const {
  return only.empty() || std::ranges::find(only, source.name) != only.end();
}

CorpusSettings read_corpus(OptionTable& data, std::span<const StepKind* const> kinds) {
  CorpusSettings settings;
  read_values(settings, data);
  for (const OptionTable& source : data.tables("source")) read_source(settings, source);
  if (settings.sources.empty())
    throw UserError::recipe(data.where(), "source: got none, expected [[data.source]] with name and path");
  for (const OptionTable& step : data.tables("step")) read_step(settings, step, kinds);
  for (const SourceOptions& source : settings.sources) check_public(settings, source);
  return settings;
}

CorpusSettings load_corpus(const std::filesystem::path& file, const std::vector<Override>& overrides,
                           const std::vector<std::string>& unset, std::span<const StepKind* const> kinds) {
  RecipeSource recipe = RecipeSource::load(file, overrides, unset);
  OptionTable root = recipe.root(), data = root.table("data");
  CorpusSettings settings = read_corpus(data, kinds);
  data.finish();
  root.finish();
  return settings;
}

}  // namespace coppice
