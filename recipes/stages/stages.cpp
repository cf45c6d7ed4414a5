#include "recipes/stages/stages.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "pruning/scores.h"
#include "src/base/errors.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

constexpr int64_t kCalibrationRows = 8;

}  // namespace

std::span<const StageRow> stage_table() {
  static constexpr std::array<StageRow, 7> kRows = {{
      {.kind = "train", .run = run_train},
      {.kind = "import", .run = run_import, .check = check_import},
      {.kind = "learn_masks", .run = run_learn_masks},
      {.kind = "prune", .run = run_prune, .check = check_prune},
      {.kind = "label", .run = run_label, .check = check_label},
      {.kind = "evaluate", .run = run_evaluate, .check = check_evaluate},
      {.kind = "export", .run = run_export, .check = check_export},
  }};
  return kRows;
}

const StageRow& stage_row(const std::string& kind) {
  for (const StageRow& row : stage_table())
    if (kind == row.kind) return row;
  throw InternalError("no stage kind " + kind);
}

Json model_facts(const StageContext& context) {
  return {{"stage", {{"name", context.stage.name}, {"kind", context.stage.kind}}},
          {"fingerprint", context.fingerprint},
          {"tokenizer_sha256", context.data.tokenizer->fingerprint()}};
}

std::filesystem::path label_folder(const StageContext& context, const std::string& label_stage,
                                   const std::string& domain) {
  const auto& options = std::get<LabelStage>(context.recipe.stage(label_stage).options);
  return options.cache.empty() ? context.run.stage(label_stage) / "labels" / domain
                               : label_cache(options.cache, domain);
}

LabelFingerprint label_fingerprint(const StageContext& context, const std::string& label_stage,
                                   const std::string& domain) {
  const auto& options = std::get<LabelStage>(context.recipe.stage(label_stage).options);
  LabelFingerprint fingerprint{
      .window_rule = options.window_rule, .context = options.context, .overlap = options.overlap};
  if (!options.has_own_labels()) fingerprint = read_label_fingerprint(label_folder(context, label_stage, domain));
  if (!options.teacher.empty()) load_model_config(context.model_folder(options.teacher), &fingerprint.teacher_sha256);
  fingerprint.tokenizer_sha256 = context.data.tokenizer->fingerprint();
  fingerprint.vocab_size = context.data.tokenizer->vocab_size();
  fingerprint.token_manifest_sha256 = context.data.train.at(domain).manifest_sha256();
  fingerprint.tier = options.tier;
  fingerprint.k = options.tier == "topk" ? options.top_k : 1;
  fingerprint.temperature = options.temperature;
  return fingerprint;
}

std::vector<Batch> check_batches(const PreparedData& data, int64_t seq_len, int64_t windows) {
  std::vector<Batch> batches;
  for (const auto& [domain, shards] : data.heldout) {
    WindowReader reader(shards, seq_len, false, windows);
    for (Batch batch; reader.next(windows, batch);) batches.push_back(std::move(batch));
  }
  return batches;
}

std::set<std::string> taken_over_stages(const Recipe& recipe) {
  std::set<std::string> taken_over;
  for (const Stage& stage : recipe.stages) {
    const auto* label = std::get_if<LabelStage>(&stage.options);
    const bool from_elsewhere = stage.kind == "import" || (label != nullptr && !label->has_own_labels());
    if (from_elsewhere &&
        std::ranges::all_of(stage.inputs(), [&](const std::string& input) { return taken_over.contains(input); }))
      taken_over.insert(stage.name);
  }
  return taken_over;
}

std::vector<MixtureEntry> calibration_mixture(const Recipe& recipe) {
  std::vector<MixtureEntry> mixture;
  for (const DomainOptions& domain : recipe.data.domains)
    if (domain.weight > 0) mixture.push_back({domain.name, domain.weight, 0});
  return mixture;
}

bool needs_calibration(const PruneStage& prune) {
  return prune.scores != "masks" && find_score(prune.scores, "").passes > 0;
}

std::vector<Batch> calibration_batches(const StageContext& context, int64_t tokens) {
  const std::vector<MixtureEntry> mixture = calibration_mixture(context.recipe);
  Loader loader(context.data.shards_of(mixture), mixture,
                {.seq_len = kCalibrationSeqLen, .document_mask = false, .seed = context.recipe.seed});
  std::vector<Batch> batches;
  for (int64_t left = tokens; left > 0; left -= kCalibrationRows * kCalibrationSeqLen)
    batches.push_back(loader.next(kCalibrationRows));
  return batches;
}

double calibration_flops(const ModelConfig& config, const ScoreRow& score, int64_t tokens) {
  constexpr int64_t kBatch = kCalibrationRows * kCalibrationSeqLen;
  return score.passes * static_cast<double>((tokens + kBatch - 1) / kBatch * kBatch) *
         forward_flops_per_token(config, kCalibrationSeqLen);
}

}  // namespace coppice
