#include "recipes/stages/learn_masks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pruning/mask_budget.h"
#include "pruning/scores.h"
#include "recipes/language/identity.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/stages/calibration.h"
#include "recipes/stages/cut_target.h"
#include "recipes/stages/import.h"
#include "recipes/stages/prune.h"
#include "recipes/stages/stage_cost.h"
#include "recipes/stages/stages.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

/// Options that only FFN channels have.
void check_axis(const OptionTable& table, const LearnMasksStage& stage) {
  const CutAxis axis = axis_of(stage.axis);
  check(axis != CutAxis::hidden, table.where("axis"),
        "axis: masks over \"hidden\" are not offered; a prune stage cuts it by a score (scores = \"activation\")");
  check(stage.masks.score_init == "noise" || scores_axis(find_score(stage.masks.score_init, ""), axis),
        table.where("score_init"),
        fmt::format("score_init: '{}' weighs the columns that a unit has in a layer, and axis = \"{}\" has none; "
                    "expected noise or one of: {}",
                    stage.masks.score_init, stage.axis, score_names(axis)));
  if (axis == CutAxis::ffn) return;
  const MaskOptions plain;
  for (const auto& [key, is_plain] : {std::pair{"budget", stage.masks.budget == plain.budget},
                                      {"round_to", stage.masks.round_to == plain.round_to},
                                      {"compact_after", stage.masks.compact_after == plain.compact_after}})
    check(is_plain, table.where(key),
          fmt::format("{}: is of FFN channels alone, and this stage has axis = \"{}\"; leave it out", key, stage.axis));
}

std::any read(OptionTable& table, const Recipe& recipe, uint64_t seed) {
  LearnMasksStage masks;
  if (table.text_of("mask_method") == "hard_concrete")
    masks.masks.score_init = "noise";  // its published start; a recipe may still name a score
  prepare_training(table, masks.training);
  table.read(masks);
  finish_training(table, masks.training, recipe.data, seed);
  check_input(recipe.stages, masks.from, model_kinds(), table.where("from"), "from");
  check_model(recipe, masks.target, table.where("target"), "target");
  check_mask_options(masks.masks, [&](const char* key) { return table.where(key); });
  check_choice(masks.axis, axis_names(), table.where("axis"), "axis");
  check_axis(table, masks);
  return masks;
}

std::string start(const Stage& stage) { return stage.get<LearnMasksStage>().from; }
std::vector<std::string> inputs(const Stage& stage) { return {start(stage)}; }
const TrainingOptions* training(const Stage& stage) { return &stage.get<LearnMasksStage>().training; }

ModelConfig leaves_model(const Recipe& recipe, const Stage& stage) { return recipe.model_after(start(stage)); }

/// Two scores that are standardised are 1 and -1, whatever they were.
void check_units(const Recipe& recipe, const Stage& stage, const LearnMasksStage& masks) {
  const CutAxis axis = axis_of(masks.axis);
  const int64_t units = units_of(recipe.model_after(masks.from), axis).front();
  const bool scaled = masks.masks.score_scale == "standardise" && masks.masks.mask_method != "hard_concrete";
  check(!scaled || units != 2 || units_of(recipe.models.at(masks.target), axis).front() == units, stage.where,
        fmt::format("{}: of two {} one is to be chosen, and two standardised scores are 1 and -1 whatever they learn; "
                    "give it score_scale = \"raw\"",
                    stage.name, row_of(axis).units));
}

/// Learned masks are one table: source and target have one width for all layers, which the budget can keep.
void check_channels(const Recipe& recipe, const Stage& stage, const LearnMasksStage& masks) {
  constexpr const char* kRemedy =
      "learned masks need one width for all layers; a prune stage cuts such a model by a score (scores = "
      "\"activation\")";
  const ModelConfig source = recipe.model_after(masks.from);
  const ModelConfig& target = recipe.models.at(masks.target);
  for (const auto& [what, widths] : {std::pair{"stage '" + masks.from + "'", source.intermediate_size},
                                     {"model." + masks.target, target.intermediate_size}})
    check(std::ranges::adjacent_find(widths, std::not_equal_to<>()) == widths.end(), stage.where,
          fmt::format("{}: {} has intermediate_size [{}]; {}", stage.name, what, fmt::join(widths, ", "), kRemedy));
  const int64_t channels = source.intermediate_size.front();
  if (const Stage* cut = global_cut(recipe, masks.from))
    check(false, stage.where,
          fmt::format("{}: stage '{}' keeps {} layers x {} = {} channels under one budget (budget = \"global\"), so "
                      "its layers differ in width; {}",
                      stage.name, cut->name, source.num_hidden_layers, channels, source.num_hidden_layers * channels,
                      kRemedy));
  check_budget({.num_kept = target.intermediate_size.front(),
                .global = masks.masks.budget == "global",
                .round_to = masks.masks.round_to},
               source.num_hidden_layers, channels, stage.where);
}

void check_models(const Recipe& recipe, const Stage& stage) {
  const auto& masks = stage.get<LearnMasksStage>();
  const CutAxis axis = axis_of(masks.axis);
  check_target(recipe, stage, masks.from, masks.target, axis);
  axis == CutAxis::ffn ? check_channels(recipe, stage, masks) : check_units(recipe, stage, masks);
  check_calibration(recipe, stage);
  check_attention_window(recipe, stage, masks.from, "seq_len", masks.training.seq_len);
}

Json identity(const Recipe& recipe, const Stage& stage) {
  const auto& masks = stage.get<LearnMasksStage>();
  Json json = deciding(masks, kAlsoInFingerprints);
  json["masks"] = take_part(json, masks.masks);
  json.update(drawing_json(masks.training));
  identify_cut(recipe, masks.target, axis_of(masks.axis), json);
  json["calibration"] = calibration_json(recipe);
  if (masks.masks.compact_after > 0)
    json["checkpoint_steps"] = masks.training.checkpoint_steps;  // dead channels leave at these steps
  return json;
}

void cost(const CostBasis& basis, const Stage& stage, StageCost& cost) {
  const auto& learned = stage.get<LearnMasksStage>();
  const MaskOptions& masks = learned.masks;
  const ModelConfig config = basis.recipe.model_after(stage.name);
  add_training(cost, learned.training, config);
  if (masks.score_init != "noise")
    cost.flops += calibration_flops(config, find_score(masks.score_init, stage.where), masks.calibration_tokens);
  // looks under the soft mask, the learned cut and a random one; overlap with activation
  cost.uncounted_flops = (3 * look_tokens(learned.training, basis) + static_cast<double>(masks.calibration_tokens)) *
                         forward_flops_per_token(config, learned.training.seq_len);
  cost.host_bytes = kBytesOfBatchToken * static_cast<double>(masks.calibration_tokens);
  cost.memory_bytes += cost.host_bytes;
  cost.work.front().read_tokens = cost.uncounted_flops / forward_flops_per_token(config, learned.training.seq_len);
  cost.work.front().ffn_mask = axis_of(learned.axis) == CutAxis::ffn;
}

}  // namespace

const StageKind kLearnMasks = {.kind = "learn_masks",
                               .seeded = true,
                               .computes = true,
                               .on_ranks = true,
                               .options = option_lines<LearnMasksStage>,
                               .read = read,
                               .inputs = inputs,
                               .start = start,
                               .leaves_model = leaves_model,
                               .check_models = check_models,
                               .training = training,
                               .identity = identity,
                               .cost = cost,
                               .run = run_learn_masks};

}  // namespace coppice
