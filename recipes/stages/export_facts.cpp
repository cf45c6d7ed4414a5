#include "recipes/stages/export_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "recipes/folder/run_folder.h"
#include "recipes/language/recipe.h"
#include "recipes/stages/import.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/checkpoint/given_model.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// What was imported, as the model that a new one was made from, and behind it those that it says it was made from
/// itself; its license holds for what is made of it.
void add_origin(GgufGeneral& general, const Json& origin, const std::string& path) {
  general.base_models.push_back({.name = origin.value("name", fs::path(path).filename().string())});
  for (const Json& base : origin.value("base_models", Json::array()))
    if (general.base_models.size() < kMaxGgufReferences)  // or no one could read them again
      general.base_models.push_back({.name = base.value("name", ""),
                                     .version = base.value("version", ""),
                                     .organization = base.value("organization", ""),
                                     .repo_url = base.value("repo_url", "")});
  general.license = origin.value("license", "");
  general.license_name = origin.value("license_name", "");
  general.license_link = origin.value("license_link", "");
}

std::optional<HfSettings> settings_of(const Stage& import, const RunFolder& run) {
  const fs::path file = run.stage(import.name) / kHfSettingsFile;
  if (!fs::exists(file)) {
    log_warning(
        fmt::format("{} is missing (an older version imported stage '{}'): end-of-text ids, chat template and "
                    "generation settings of its folder are not exported",
                    file.string(), import.name));
    return std::nullopt;
  }
  HfSettings settings = load_hf_settings(file);
  if (const std::string summary = settings.summary(); !summary.empty())
    log_info(fmt::format("exported with what stage '{}' kept: {}", import.name, summary));
  return settings;
}

ExportFacts facts_of_given(const fs::path& path, const Tokenizer& tokenizer) {
  ExportFacts facts{.settings = given_settings(path, tokenizer).settings};
  const Json origin = given_origin(path);
  facts.general.name = origin.value("name", path.stem().string());
  add_origin(facts.general, origin, path.string());
  return facts;
}

/// The recipe around a stage's folder.
struct FoundStage {
  std::optional<Recipe> recipe;  // none: `missing` says why
  fs::path root;
  std::string name, missing;
};

FoundStage find_stage(const fs::path& stage_folder) {
  fs::path folder = fs::absolute(stage_folder).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // given with a slash at its end
  if (folder.filename() == "model") folder = folder.parent_path();
  FoundStage found{.recipe = {}, .root = folder.parent_path(), .name = folder.filename().string(), .missing = {}};
  if (!fs::exists(found.root / "recipe.toml")) {
    found.missing = fmt::format("{} has no recipe.toml", found.root.string());
    return found;
  }
  try {
    found.recipe = load_recorded_recipe(found.root);
  } catch (const UserError& error) {  // of an older version, its sources gone
    found.missing = error.what();
    return found;
  }
  if (std::ranges::find(found.recipe->stages, found.name, &Stage::name) == found.recipe->stages.end()) {
    found.recipe.reset();
    found.missing =
        fmt::format("'{}' is no stage of this run's recipe (one that was set aside?)", printable(found.name));
  }
  return found;
}

ExportFacts facts_of_stage(const fs::path& stage_folder) {
  FoundStage found = find_stage(stage_folder);
  try {
    if (found.recipe) return facts_for_export(*found.recipe, RunFolder::beside_its_owner(found.root), found.name);
  } catch (const UserError& error) {  // what it kept is damaged
    found.missing = error.what();
  }
  log_warning(
      fmt::format("{}: chat template and generation settings, if its model was imported, and where it comes from are "
                  "not exported",
                  found.missing));
  return {};
}

}  // namespace

ExportFacts facts_for_export(const Recipe& recipe, const RunFolder& run, const std::string& stage_name) {
  ExportFacts facts;
  facts.general.name = fmt::format("{}-{}", recipe.name, stage_name);
  facts.general.basename = recipe.name;
  for (const DomainOptions& domain : recipe.data.domains) facts.general.datasets.push_back({.name = domain.name});
  const Stage* import = imported_from(recipe, stage_name);
  if (import == nullptr) return facts;
  facts.settings = settings_of(*import, run);
  const auto manifest = find_stage_manifest(result_folder(run.stage(import->name)));
  const Json origin = manifest ? manifest->body.at("results").value("origin", Json::object()) : Json::object();
  add_origin(facts.general, origin, import->get<ImportStage>().path);
  return facts;
}

std::optional<HfSettings> kept_settings(const fs::path& model, const Tokenizer& tokenizer) {
  if (is_given_model(model)) return given_settings(model, tokenizer).settings;
  const FoundStage found = find_stage(model);
  const Stage* import = found.recipe ? imported_from(*found.recipe, found.name) : nullptr;
  if (import == nullptr) return std::nullopt;
  const fs::path file = RunFolder::beside_its_owner(found.root).stage(import->name) / kHfSettingsFile;
  return fs::exists(file) ? std::optional(load_hf_settings(file)) : std::nullopt;
}

ExportFacts facts_for_export(const fs::path& model, const Tokenizer& tokenizer) {
  return is_given_model(model) ? facts_of_given(model, tokenizer) : facts_of_stage(model);
}

}  // namespace coppice
