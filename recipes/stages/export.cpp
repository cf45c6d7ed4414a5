#include "recipes/stages/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "recipes/folder/machine.h"
#include "recipes/language/identity.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/language/sources.h"
#include "recipes/stages/context.h"
#include "recipes/stages/export_facts.h"
#include "recipes/stages/import.h"
#include "recipes/stages/stage_cost.h"
#include "recipes/stages/stages.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/gguf_export.h"
#include "src/checkpoint/given_model.h"
#include "src/checkpoint/hf_export.h"
#include "src/checkpoint/hf_settings.h"
#include "src/checkpoint/model_card.h"
#include "src/checkpoint/tokenizer_json.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

std::any read(OptionTable& table, const Recipe& recipe, uint64_t) {
  ExportStage exports;
  table.read(exports);
  check_input(recipe.stages, exports.from, model_kinds(), table.where("from"), "from");
  check(!exports.formats.empty(), table.where("formats"), "formats: expected at least one: hf or gguf");
  for (const std::string& format : exports.formats)
    check_choice(format, {"hf", "gguf"}, table.where("formats"), "formats");
  check_choice(exports.dtype, {"f32", "bf16"}, table.where("dtype"), "dtype");
  check_choice(exports.quantization, {"f32", "f16", "bf16", "q8_0", "q4_0"}, table.where("quantization"),
               "quantization");
  return exports;
}

std::vector<std::string> inputs(const Stage& stage) { return {stage.get<ExportStage>().from}; }

bool writes_gguf(const ExportStage& exports) { return std::ranges::count(exports.formats, "gguf") > 0; }

Json identity(const Recipe&, const Stage& stage) {
  const auto& exports = stage.get<ExportStage>();
  Json identity = deciding(exports);
  if (!writes_gguf(exports)) identity.erase("quantization");  // it acts on nothing, and older runs do not know it
  return identity;
}

/// Bytes of a weight of the GGUF file.
double bytes_per_weight(const std::string& quantization) {
  return quantization == "q8_0" ? 34.0 / 32 : quantization == "q4_0" ? 18.0 / 32 : quantization == "f32" ? 4 : 2;
}

void cost(const CostBasis& basis, const Stage& stage, StageCost& cost) {
  const auto& exports = stage.get<ExportStage>();
  const ModelConfig config = basis.recipe.model_after(exports.from);
  cost.parameters = count_parameters(config);
  cost.memory_bytes = 2 * model_bytes(config);
  cost.disk_bytes = 0;
  for (const std::string& format : exports.formats)
    cost.disk_bytes += model_bytes(config) / 4 *
                       (format == "gguf"         ? bytes_per_weight(exports.quantization)
                        : exports.dtype == "f32" ? 4
                                                 : 2);
}

void check_early(const BeforeWork& before, const Stage& stage) {
  if (before.tokenizer == nullptr) return;
  const auto& exports = stage.get<ExportStage>();
  check_exportable(*before.tokenizer, stage.where);
  if (writes_gguf(exports))
    check_gguf_export(before.recipe.model_after(exports.from), *before.tokenizer, {.type = exports.quantization});
}

/// What the folder says now was not asked for again: it is no part of an import's identity.
void warn_of_new_settings(const StageContext& context, const HfSettings& kept) {
  const Stage& import = *imported_from(context.recipe, context.stage.get<ExportStage>().from);
  const std::string& path = import.get<ImportStage>().path;
  if (is_gone(path) || given_settings(path, *context.data.tokenizer).settings == kept) return;
  log_warning(
      fmt::format("stage '{}': {} says other end-of-text ids, chat template or generation settings now than when stage "
                  "'{}' imported it; those it kept are "
                  "exported (move {} away to import again)",
                  context.stage.name, path, import.name, context.run.stage(import.name).string()));
}

Json write_hf(const StageContext& context, const Model& model, const ExportFacts& facts) {
  const auto& options = context.stage.get<ExportStage>();
  const std::filesystem::path folder = context.folder() / "hf";
  const HfExportReport report = export_hf(folder, model, *context.data.tokenizer, options.dtype,
                                          {.model_card = model_card_text(facts.general), .settings = facts.kept()});
  log_info(fmt::format("stage '{}': {} written ({}), re-imported logits differ by {:.2e}", context.stage.name,
                       folder.string(), format_bytes(static_cast<double>(report.bytes)), report.max_logit_difference));
  return {{"reimport_logit_difference", report.max_logit_difference}, {"bytes", report.bytes}};
}

Json write_gguf(const StageContext& context, const LoadedModel& loaded, const ExportFacts& facts) {
  const auto& options = context.stage.get<ExportStage>();
  std::string type = options.quantization;
  std::ranges::transform(type, type.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  const std::string name = fmt::format("{}-{}-{}.gguf", context.recipe.name, options.from, type);
  const std::filesystem::path folder = context.folder() / "gguf";
  make_folder(folder);
  const GgufExportReport report = export_gguf(folder / name, loaded.model, *context.data.tokenizer,
                                              {.type = options.quantization,
                                               .settings = facts.kept(),
                                               .general = facts.general,
                                               .source_sha256 = loaded.sha256,
                                               .version = versions_json().at("coppice").get<std::string>()});
  const bool exact = options.quantization == "f32";
  log_info(fmt::format("stage '{}': {} written ({}), every weight read back; logits differ by {:.2e}{}",
                       context.stage.name, (folder / name).string(), format_bytes(static_cast<double>(report.bytes)),
                       report.max_logit_difference, exact ? "" : fmt::format(", which is what {} rounds", type)));
  return {{exact ? "reimport_logit_difference" : "rounding_logit_difference", report.max_logit_difference},
          {"file", name},
          {"bytes", report.bytes}};
}

Json run(StageContext& context) {
  const auto& options = context.stage.get<ExportStage>();
  const LoadedModel loaded = load_model(context.model_folder(options.from));
  const ExportFacts facts = facts_for_export(context.recipe, context.run, options.from);
  if (facts.settings) warn_of_new_settings(context, *facts.settings);
  Json results = Json::object();
  for (const std::string& format : options.formats)
    results[format] = format == "gguf" ? write_gguf(context, loaded, facts) : write_hf(context, loaded.model, facts);
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
