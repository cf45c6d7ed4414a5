#include "recipes/stages.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "pruning/scores.h"

namespace coppice {

std::span<const StageRow> stage_table() {
  static constexpr std::array<StageRow, 6> kRows = {{
      {.kind = "train", .run = run_train},
      {.kind = "learn_masks", .run = run_learn_masks},
      {.kind = "prune", .run = run_prune},
      {.kind = "label", .run = run_label},
      {.kind = "evaluate", .run = run_evaluate},
      {.kind = "export", .run = run_export},
  }};
  return kRows;
}

Json model_facts(const StageContext& context) {
  return {{"stage", {{"name", context.stage.name}, {"kind", context.stage.kind}}},
          {"fingerprint", context.fingerprint},
          {"tokenizer_sha256", context.data.tokenizer->fingerprint()}};
}

LabelFingerprint label_fingerprint(const StageContext& context, const std::string& label_stage) {
  const auto& options = std::get<LabelStage>(context.recipe.stage(label_stage).options);
  LabelFingerprint fingerprint{.tokenizer_sha256 = context.data.tokenizer->fingerprint(),
                               .vocab_size = context.data.tokenizer->vocab_size(),
                               .tier = options.tier,
                               .k = options.tier == "topk" ? options.top_k : 1,
                               .temperature = options.temperature,
                               .window_rule = options.window_rule,
                               .context = options.context,
                               .overlap = options.overlap};
  if (options.import.empty()) {
    load_model_config(context.model_folder(options.teacher), &fingerprint.teacher_sha256);
  } else {
    fingerprint.teacher_sha256 = "import " + corpus_sha256(options.import);
    fingerprint.window_rule = "given";
    fingerprint.context = fingerprint.overlap = 0;
  }
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

std::vector<MixtureEntry> calibration_mixture(const Recipe& recipe) {
  std::vector<MixtureEntry> mixture;
  for (const DomainOptions& domain : recipe.data.domains)
    if (domain.weight > 0) mixture.push_back({domain.name, domain.weight, 0});
  return mixture;
}

bool needs_calibration(const PruneStage& prune) { return prune.scores != "masks" && find_score(prune.scores, "").needs_batches; }

std::vector<Batch> calibration_batches(const StageContext& context, int64_t tokens) {
  constexpr int64_t kRows = 8;
  const std::vector<MixtureEntry> mixture = calibration_mixture(context.recipe);
  Loader loader(context.data.shards_of(mixture), mixture, {.seq_len = kCalibrationSeqLen, .document_mask = false, .seed = context.recipe.seed});
  std::vector<Batch> batches;
  for (int64_t left = tokens; left > 0; left -= kRows * kCalibrationSeqLen) batches.push_back(loader.next(kRows));
  return batches;
}

}  // namespace coppice
