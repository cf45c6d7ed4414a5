#include "recipes/stages/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "recipes/language/identity.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/language/sources.h"
#include "recipes/stages/context.h"
#include "recipes/stages/import.h"
#include "recipes/stages/stage_cost.h"
#include "recipes/stages/stages.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/hf_export.h"
#include "src/checkpoint/hf_settings.h"
#include "src/checkpoint/tokenizer_json.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

std::any read(OptionTable& table, const Recipe& recipe, uint64_t) {
  ExportStage exports;
  table.read(exports);
  check_input(recipe.stages, exports.from, model_kinds(), table.where("from"), "from");
  check(!exports.formats.empty(), table.where("formats"), "formats: expected at least one: hf");
  for (const std::string& format : exports.formats) check_choice(format, {"hf"}, table.where("formats"), "formats");
  check_choice(exports.dtype, {"f32", "bf16"}, table.where("dtype"), "dtype");
  return exports;
}

std::vector<std::string> inputs(const Stage& stage) { return {stage.get<ExportStage>().from}; }

Json identity(const Recipe&, const Stage& stage) { return deciding(stage.get<ExportStage>()); }

void cost(const CostBasis& basis, const Stage& stage, StageCost& cost) {
  const auto& exports = stage.get<ExportStage>();
  const ModelConfig config = basis.recipe.model_after(exports.from);
  cost.parameters = count_parameters(config);
  cost.memory_bytes = 2 * model_bytes(config);
  cost.disk_bytes = model_bytes(config) * (exports.dtype == "f32" ? 1 : 0.5);
}

void check_early(const BeforeWork& before, const Stage& stage) {
  if (before.tokenizer != nullptr) check_exportable(*before.tokenizer, stage.where);
}

/// What the folder says now was not asked for again: it is no part of an import's identity.
void warn_of_new_settings(const StageContext& context, const HfSettings& kept) {
  const Stage& import = *imported_from(context.recipe, context.stage.get<ExportStage>().from);
  const std::string& path = import.get<ImportStage>().path;
  if (is_gone(path) || read_hf_settings(path, *context.data.tokenizer).settings == kept) return;
  log_warning(
      fmt::format("stage '{}': {} says other end-of-text ids, chat template or generation settings now than when stage "
                  "'{}' imported it; those it kept are "
                  "exported (move {} away to import again)",
                  context.stage.name, path, import.name, context.run.stage(import.name).string()));
}

Json run(StageContext& context) {
  const auto& options = context.stage.get<ExportStage>();
  const LoadedModel loaded = load_model(context.model_folder(options.from));
  const std::optional<HfSettings> settings = settings_for_export(context.recipe, context.run, options.from);
  if (settings) warn_of_new_settings(context, *settings);
  Json results = Json::object();
  for (const std::string& format : options.formats) {
    const std::filesystem::path folder = context.folder() / format;
    const HfExportReport report = export_hf(folder, loaded.model, *context.data.tokenizer, options.dtype,
                                            {.settings = settings ? &*settings : nullptr});
    log_info(fmt::format("stage '{}': {} written ({}), re-imported logits differ by {:.2e}", context.stage.name,
                         folder.string(), format_bytes(static_cast<double>(report.bytes)),
                         report.max_logit_difference));
    results[format] = {{"reimport_logit_difference", report.max_logit_difference}, {"bytes", report.bytes}};
  }
  return {{"tokens", 0}, {"results", results}};
}

}  // namespace

const StageKind kExport = {.kind = "export",
                           .options = option_lines<ExportStage>,
                           .read = read,
                           .inputs = inputs,
                           .identity = identity,
                           .cost = cost,
                           .check = check_early,
                           .run = run};

std::optional<HfSettings> settings_for_export(const Recipe& recipe, const RunFolder& run,
                                              const std::string& stage_name) {
  const Stage* import = imported_from(recipe, stage_name);
  if (import == nullptr) return std::nullopt;
  const std::filesystem::path file = run.stage(import->name) / kHfSettingsFile;
  if (!std::filesystem::exists(file)) {
    log_warning(
        fmt::format("{} is missing (an older version imported stage '{}'): end-of-text ids, chat template and "
                    "generation settings of its folder are not "
                    "exported",
                    file.string(), import->name));
    return std::nullopt;
  }
  HfSettings settings = load_hf_settings(file);
  if (const std::string summary = settings.summary(); !summary.empty())
    log_info(fmt::format("exported with what stage '{}' kept: {}", import->name, summary));
  return settings;
}

std::optional<HfSettings> settings_for_export(const std::filesystem::path& stage_folder) {
  std::filesystem::path folder = std::filesystem::absolute(stage_folder).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // given with a slash at its end
  if (folder.filename() == "model") folder = folder.parent_path();
  const std::filesystem::path root = folder.parent_path();
  if (!std::filesystem::exists(root / "recipe.toml")) {
    log_warning(fmt::format(
        "{} has no recipe.toml: chat template and generation settings, if its model was imported, are not exported",
        root.string()));
    return std::nullopt;
  }
  try {
    const Recipe recipe = load_recorded_recipe(root);
    const std::string name = folder.filename().string();
    if (std::ranges::find(recipe.stages, name, &Stage::name) == recipe.stages.end()) {
      log_warning(
          fmt::format("'{}' is no stage of this run's recipe (one that was set aside?): chat template and generation "
                      "settings, if its model was imported, "
                      "are not exported",
                      printable(name)));
      return std::nullopt;
    }
    return settings_for_export(recipe, RunFolder::beside_its_owner(root), name);
  } catch (const UserError& error) {  // of an older version, its sources gone
    log_warning(fmt::format("chat template and generation settings, if its model was imported, are not exported: {}",
                            error.what()));
    return std::nullopt;
  }
}

std::string prefix_warning(const Tokenizer& tokenizer) {
  const std::string piece = piece_without_prefix(tokenizer);
  return piece.empty() ? ""
                       : fmt::format(
                             "in the exported tokenizer.json a text that is nothing but '{}', or another user-defined "
                             "piece, has no dummy prefix; every other "
                             "text has SentencePiece's ids",
                             printable(piece));
}

}  // namespace coppice
