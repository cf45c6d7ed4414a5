#include "recipes/stages/calibration.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "pruning/scores.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/stages/context.h"
#include "src/data/batch_device.h"
#include "src/model/parameters.h"

namespace coppice {

std::vector<MixtureEntry> calibration_mixture(const Recipe& recipe) {
  std::vector<MixtureEntry> mixture;
  for (const DomainOptions& domain : recipe.data.domains)
    if (domain.weight > 0) mixture.push_back({domain.name, domain.weight, 0});
  return mixture;
}

Json calibration_json(const Recipe& recipe) {
  Json weights = Json::object();
  for (const MixtureEntry& entry : calibration_mixture(recipe)) weights[entry.domain] = entry.weight;
  return weights;
}

void check_calibration(const Recipe& recipe, const Stage& stage) {
  check(!calibration_mixture(recipe).empty(), stage.where,
        fmt::format("{}: calibration text is drawn by the weights of [[data.domain]], and all of them are 0",
                    stage.name));
  check_open(recipe, stage, calibration_mixture(recipe), "calibration text");
}

std::vector<Batch> calibration_batches(const StageContext& context, int64_t tokens) {
  const std::vector<MixtureEntry> mixture = calibration_mixture(context.recipe);
  Loader loader(context.data.shards_of(mixture), mixture,
                {.seq_len = kCalibrationSeqLen,
                 .document_mask = false,
                 .seed = context.recipe.seed,
                 .stage = context.stage.name});
  const at::Device device = place(context.stage).device;
  std::vector<Batch> batches;
  for (int64_t left = tokens; left > 0; left -= kCalibrationRows * kCalibrationSeqLen)
    batches.push_back(on_device(loader.next(kCalibrationRows), device));
  return batches;
}

int64_t whole_batches(int64_t tokens) {
  constexpr int64_t kBatch = kCalibrationRows * kCalibrationSeqLen;
  return (tokens + kBatch - 1) / kBatch * kBatch;
}

double calibration_flops(const ModelConfig& config, const ScoreRow& score, int64_t tokens) {
  return score.passes * static_cast<double>(whole_batches(tokens)) *
         forward_flops_per_token(config, kCalibrationSeqLen);
}

}  // namespace coppice
