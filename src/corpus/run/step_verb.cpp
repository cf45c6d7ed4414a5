#include "src/corpus/run/step_verb.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "src/base/errors.h"

namespace coppice {
namespace {

/// Of crawl/*.warc.gz: crawl; of notes/a.jsonl.zst: a.
std::string name_of(const std::string& input) {
  std::filesystem::path path(input);
  while (!path.empty() && (!path.has_filename() || path.filename().native().find_first_of("*?") != std::string::npos))
    path = path.parent_path() == path ? std::filesystem::path() : path.parent_path();
  const std::string name = path.filename();
  return name.empty() || name.front() == '.' ? "data" : name.substr(0, name.find('.'));
}

std::string flag_of(std::string key) {
  std::ranges::replace(key, '_', '-');
  return "--" + key;
}

}  // namespace

std::string list_value(const std::vector<std::string>& given) {
  if (given.size() == 1 && (given[0].starts_with('[') || given[0].starts_with('{'))) return given[0];
  std::string list;
  for (const std::string& value : given) list += (list.empty() ? "" : ", ") + toml_string(value);
  return "[" + list + "]";
}

StepRecipe step_recipe(const StepVerb& verb) {
  if (!verb.source.empty() && verb.inputs.size() != 1)
    throw UserError::recipe("--source", fmt::format("names one input, got {}", verb.inputs.size()));
  const std::string command = "coppice data " + verb.kind;
  StepRecipe recipe;
  const auto add = [&recipe](const std::string& line, const std::string& place) {
    recipe.text += line + "\n";  // a value may take several lines
    recipe.places.insert(recipe.places.end(), 1 + static_cast<size_t>(std::ranges::count(line, '\n')), place);
  };
  const auto add_key = [&](const std::string& key, const std::string& value, const std::string& place) {
    add(key + " = " + value, place);
  };
  add("[data]", command);
  for (const auto& [key, value] : verb.data) add_key(key, toml_value(value), flag_of(key));
  std::set<std::string> names;
  for (const std::string& input : verb.inputs) {
    const std::string stem = verb.source.empty() ? name_of(input) : verb.source;
    std::string name = stem;
    for (int i = 2; !names.insert(name).second; ++i) name = fmt::format("{}-{}", stem, i);
    add("[[data.source]]", input);
    add_key("name", toml_string(name), verb.source.empty() ? input : "--source");
    add_key("path", toml_string(input), input);
    if (!verb.source_kind.empty()) add_key("kind", toml_string(verb.source_kind), "--kind");
    if (!verb.license.empty()) add_key("license", toml_string(verb.license), "--license");
    if (!verb.text.empty()) add_key("text", toml_string(verb.text), "--text");
    if (!verb.stages.empty()) add_key("stages", list_value(verb.stages), "--stages");
  }
  add("[[data.step]]", command);
  add_key("kind", toml_string(verb.kind), command);
  for (const auto& [key, value] : verb.options) add_key(key, toml_value(value), flag_of(key));
  return recipe;
}

CorpusSettings read_step_verb(const StepVerb& verb, std::span<const StepKind* const> kinds) {
  const StepRecipe made = step_recipe(verb);
  RecipeSource recipe = RecipeSource::parse_text(made.text, "coppice data " + verb.kind, made.places);
  OptionTable root = recipe.root(), data = root.table("data");
  CorpusSettings settings = read_corpus(data, kinds);
  data.finish();
  root.finish();
  for (SourceOptions& source : settings.sources) source.text_option = "--text";
  return settings;
}

}  // namespace coppice
