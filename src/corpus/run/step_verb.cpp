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

}  // namespace

std::string step_recipe(const StepVerb& verb) {
  if (!verb.source.empty() && verb.inputs.size() != 1)
    throw UserError::recipe("--source", fmt::format("names one input, got {}", verb.inputs.size()));
  std::string text = "[data]\n";
  for (const auto& [key, value] : verb.data) text += fmt::format("{} = {}\n", key, toml_value(value));
  std::set<std::string> names;
  for (const std::string& input : verb.inputs) {
    const std::string stem = verb.source.empty() ? name_of(input) : verb.source;
    std::string name = stem;
    for (int i = 2; !names.insert(name).second; ++i) name = fmt::format("{}-{}", stem, i);
    text += fmt::format("[[data.source]]\nname = {}\npath = {}\n", toml_string(name), toml_string(input));
    if (!verb.license.empty()) text += fmt::format("license = {}\n", toml_string(verb.license));
    if (!verb.text.empty()) text += fmt::format("text = {}\n", toml_string(verb.text));
  }
  text += fmt::format("[[data.step]]\nkind = {}\n", toml_string(verb.kind));
  for (const auto& [key, value] : verb.options) text += fmt::format("{} = {}\n", key, toml_value(value));
  return text;
}

CorpusSettings read_step_verb(const StepVerb& verb, std::span<const StepKind* const> kinds) {
  RecipeSource recipe = RecipeSource::parse_text(step_recipe(verb), "coppice data " + verb.kind);
  OptionTable root = recipe.root(), data = root.table("data");
  CorpusSettings settings = read_corpus(data, kinds);
  data.finish();
  root.finish();
  return settings;
}

}  // namespace coppice
