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

ExportFacts facts_of_stage(const fs::path& stage_folder) {
  constexpr const char* kLost =
      "chat template and generation settings, if its model was imported, and where it comes from are not exported";
  fs::path folder = fs::absolute(stage_folder).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // given with a slash at its end
  if (folder.filename() == "model") folder = folder.parent_path();
  const fs::path root = folder.parent_path();
  if (!fs::exists(root / "recipe.toml")) {
    log_warning(fmt::format("{} has no recipe.toml: {}", root.string(), kLost));
    return {};
  }
  try {
    const Recipe recipe = load_recorded_recipe(root);
    const std::string name = folder.filename().string();
    if (std::ranges::find(recipe.stages, name, &Stage::name) == recipe.stages.end()) {
      log_warning(
          fmt::format("'{}' is no stage of this run's recipe (one that was set aside?): {}", printable(name), kLost));
      return {};
    }
    return facts_for_export(recipe, RunFolder::beside_its_owner(root), name);
  } catch (const UserError& error) {  // of an older version, its sources gone
    log_warning(fmt::format("{}: {}", kLost, error.what()));
    return {};
  }
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

ExportFacts facts_for_export(const fs::path& model, const Tokenizer& tokenizer) {
  return is_given_model(model) ? facts_of_given(model, tokenizer) : facts_of_stage(model);
}

}  // namespace coppice
