// prune: scores -> plan -> smaller weights; masked and pruned logits are compared and printed every time. A refit comes
// behind that comparison: its weights are the source's no more.
#include "recipes/stages/prune.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pruning/mask_file.h"
#include "pruning/plan.h"
#include "pruning/refit.h"
#include "pruning/scores.h"
#include "recipes/language/identity.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/stages/calibration.h"
#include "recipes/stages/context.h"
#include "recipes/stages/cut_target.h"
#include "recipes/stages/learn_masks.h"
#include "recipes/stages/refit.h"
#include "recipes/stages/stage_cost.h"
#include "recipes/stages/stages.h"
#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/checkpoint/checkpoint.h"
#include "src/data/batch_device.h"
#include "src/model/parameters.h"
#include "student/targets.h"

namespace coppice {
namespace {

/// The options of the learn_masks stage that `from` names; nullptr where it names another.
const LearnMasksStage* masks_before(const Recipe& recipe, const std::string& from) {
  const auto found = std::ranges::find(recipe.stages, from, &Stage::name);
  return found == recipe.stages.end() ? nullptr : found->find<LearnMasksStage>();
}

/// Scores that the axis has no use for.
void check_axis(const OptionTable& table, const PruneStage& prune) {
  const CutAxis axis = axis_of(prune.axis);
  check(prune.scores == "masks" || scores_axis(find_score(prune.scores, table.where("scores")), axis),
        table.where("scores"),
        fmt::format("scores: '{}' weighs the columns that a unit has in a layer, and axis = \"{}\" has none; expected "
                    "one of: {}",
                    prune.scores, prune.axis, score_names(axis)));
}

std::any read(OptionTable& table, const Recipe& recipe, uint64_t) {
  PruneStage prune;
  const LearnMasksStage* masks = masks_before(recipe, table.text_of("from"));
  if (masks != nullptr) {
    prune.scores = "masks";
    if (const std::string scores = table.text_of("scores"); scores.empty() || scores == "masks")
      prune.axis = masks->axis;
  }
  table.read(prune);
  check_input(recipe.stages, prune.from, model_kinds(), table.where("from"), "from");
  check(!prune.scores.empty(), table.where(),
        fmt::format(
            "scores: missing; 'masks' needs `from` to be a learn_masks stage, and '{}' is none: name a score ({})",
            prune.from, score_names()));
  check(prune.scores != "masks" || masks != nullptr, table.where("scores"),
        fmt::format("scores = \"masks\" needs `from` to be a learn_masks stage, '{}' is none", prune.from));
  if (prune.scores != "masks") find_score(prune.scores, table.where("scores"));
  check(prune.calibration_tokens > 0 && prune.calibration_tokens <= 100'000'000, table.where("calibration_tokens"),
        fmt::format("calibration_tokens: got {}, expected 1 to 10^8", prune.calibration_tokens));
  check(prune.refit_damping >= 1e-8 && prune.refit_damping <= 1, table.where("refit_damping"),
        fmt::format("refit_damping: got {}, expected 1e-8 to 1", prune.refit_damping));
  check_model(recipe, prune.target, table.where("target"), "target");
  check_choice(prune.axis, axis_names(), table.where("axis"), "axis");
  check_axis(table, prune);
  check(prune.scores != "masks" || prune.axis == masks->axis, table.where("axis"),
        fmt::format("axis: got '{}', and the masks of stage '{}' are of axis '{}'", prune.axis, prune.from,
                    prune.scores == "masks" ? masks->axis : ""));
  return prune;
}

std::string start(const Stage& stage) { return stage.get<PruneStage>().from; }
std::vector<std::string> inputs(const Stage& stage) { return {start(stage)}; }

ModelConfig leaves_model(const Recipe& recipe, const Stage& stage) {
  const auto& prune = stage.get<PruneStage>();
  return shape_after_cut(recipe, prune.from, prune.target, axis_of(prune.axis));
}

void check_models(const Recipe& recipe, const Stage& stage) {
  const auto& prune = stage.get<PruneStage>();
  check_target(recipe, stage, prune.from, prune.target, axis_of(prune.axis));
  if (needs_calibration(prune)) check_calibration(recipe, stage);
}

Json identity(const Recipe& recipe, const Stage& stage) {
  const auto& prune = stage.get<PruneStage>();
  Json json = deciding(prune);
  identify_cut(recipe, prune.target, axis_of(prune.axis), json);
  if (needs_calibration(prune))
    json["calibration"] = calibration_json(recipe);
  else
    json.erase("calibration_tokens");
  if (!prune.refit)
    for (const char* key : {"refit", "refit_damping"}) json.erase(key);
  return json;
}

void cost(const CostBasis& basis, const Stage& stage, StageCost& cost) {
  const auto& prune = stage.get<PruneStage>();
  const ModelConfig config = basis.recipe.model_after(stage.name), source = basis.recipe.model_after(prune.from);
  cost.parameters = count_parameters(config);
  if (prune.scores != "masks")
    cost.flops = calibration_flops(source, find_score(prune.scores, stage.where), prune.calibration_tokens);
  cost.work = {
      reading_work(source, kCalibrationSeqLen, cost.flops / forward_flops_per_token(source, kCalibrationSeqLen)),
      reading_work(config, kCalibrationSeqLen, 0)};
  if (needs_calibration(prune)) cost.host_bytes = kBytesOfBatchToken * static_cast<double>(prune.calibration_tokens);
  cost.memory_bytes = model_bytes(source) + model_bytes(config) + cost.host_bytes;
  cost.disk_bytes = model_bytes(config);
  if (!prune.refit) return;
  const CutAxis axis = axis_of(prune.axis);
  cost.flops += refit_flops(source, config, axis, expected_halves(source, config, axis), prune.calibration_tokens);
  const bool widths_known = global_cut(basis.recipe, stage.name) == nullptr;
  cost.device_bytes = refit_bytes(source, widths_known ? config : source, axis, prune.calibration_tokens);
  cost.memory_bytes += cost.device_bytes;
  cost.memory_remedy = fmt::format("{}.calibration_tokens or the model's size", stage.name);
}

void check_early(const BeforeWork& before, const Stage& stage) {
  const auto& options = stage.get<PruneStage>();
  const auto* masks = before.recipe.stage(options.from).find<LearnMasksStage>();
  if (options.scores != "masks" || masks == nullptr || masks->masks.budget != "global") return;
  if (before.recipe.models.at(options.target).intermediate_size !=
      before.recipe.models.at(masks->target).intermediate_size)
    throw UserError::recipe(stage.where, fmt::format("stage '{}' learned what each layer keeps (budget = \"global\") "
                                                     "for model.{}; give this stage target = \"{}\"",
                                                     options.from, masks->target, masks->target));
}

double mean_loss(const Model& model, const std::vector<Batch>& batches, const DecoderMasks& masks) {
  double ce = 0;
  int64_t live = 0;
  for (const Batch& batch : batches) {
    const LossSums sums =
        evaluate_batch(model, batch, make_targets(batch, {}, KdOptions{.teacher_weight = 0, .z_loss = 0}), masks);
    ce += sums.ce;
    live += sums.num_live;
  }
  return ce / static_cast<double>(live);
}

/// After a cut under one budget for all layers some may have fewer than K channels, which nobody knew before: they stay
/// as they are.
void keep_narrow_layers(const std::string& stage, const std::vector<int64_t>& channels,
                        std::vector<int64_t>& num_kept) {
  for (size_t layer = 0; layer < channels.size(); ++layer)
    if (num_kept[layer] > channels[layer]) {
      log_info(fmt::format("stage '{}': layer {} has {} channels, fewer than the {} that may stay: none is cut", stage,
                           layer, channels[layer], num_kept[layer]));
      num_kept[layer] = channels[layer];
    }
}

/// A fixed sample of held-out windows as decoder inputs: logits of two models are compared on it.
std::vector<Batch> check_batches(const PreparedData& data, int64_t seq_len, int64_t windows, at::Device device) {
  std::vector<Batch> batches;
  for (const auto& [domain, shards] : data.heldout) {
    WindowReader reader(shards, seq_len, false, windows);
    for (Batch batch; reader.next(windows, batch);) batches.push_back(on_device(std::move(batch), device));
  }
  return batches;
}

at::Tensor computed_scores(const StageContext& context, const ScoreRow& row, const Model& source,
                           const std::vector<Batch>& calibration, CutAxis axis) {
  ScoreInput input{.model = &source, .seed = context.recipe.seed, .pad = true, .axis = axis};
  if (row.passes == 0) return row.compute(input);
  input.batches = calibration;
  Progress progress(context.stage.name, calibration.size(), "batch");
  progress.update(0, {});
  input.after_batch = [&](size_t done) {
    progress.update(done, {});
    (void)COPPICE_FAILPOINT("scores.after_batch");
    if (stop_requested() && done < calibration.size())
      throw Stopped(fmt::format("stopped while scoring '{}', batch {} of {}; run again to do the stage anew",
                                context.stage.name, done, calibration.size()));
  };
  at::Tensor scores_RU = row.compute(input);
  progress.finish(
      fmt::format("scored by {} on {} tokens", row.name, calibration.size() * kCalibrationRows * kCalibrationSeqLen));
  return scores_RU;
}

Json run(StageContext& context) {
  const auto& options = context.stage.get<PruneStage>();
  const CutAxis axis = axis_of(options.axis);
  const Placement on = place(context.stage);
  const LoadedModel source = load_model(context.model_folder(options.from), on);
  std::vector<int64_t> num_kept = units_of(context.recipe.models.at(options.target), axis);
  const std::vector<int64_t> units = units_of(source.model.config, axis);

  const std::vector<Batch> calibration =
      needs_calibration(options) ? calibration_batches(context, options.calibration_tokens) : std::vector<Batch>();
  at::Tensor scores_RU, soft_RU;
  double flops = 0;
  if (options.scores == "masks") {
    const std::filesystem::path path = context.run.stage(options.from) / "masks.h5";
    const MaskFile masks = load_masks(path);
    if (masks.source_sha256 != source.sha256)
      throw UserError::bad_file(path.string(),
                                fmt::format("these masks belong to another model: they name {}, stage '{}' is {}",
                                            masks.source_sha256, options.from, source.sha256));
    if (masks.axis != axis)
      throw UserError::bad_file(path.string(), fmt::format("these masks are of axis '{}', and stage '{}' cuts '{}'",
                                                           row_of(masks.axis).name, context.stage.name, options.axis));
    if (masks.global) num_kept = masks.widths();  // learned under one budget for all layers
    scores_RU = masks.scores_LF;
    soft_RU = masks.soft_LF;
  } else {
    const ScoreRow& row = find_score(options.scores, context.stage.where);
    scores_RU = computed_scores(context, row, source.model, calibration, axis);
    keep_narrow_layers(context.stage.name, units, num_kept);
    flops = calibration_flops(source.model.config, row, options.calibration_tokens);
  }
  const PrunePlan plan = make_plan(scores_RU, num_kept, options.scores, source.sha256, units, axis);
  Model pruned = prune_model(source.model, plan, soft_RU);

  const std::vector<Batch> batches = check_batches(context.data, kCheckSeqLen, 4, on.device);
  const at::Tensor hard_RU = plan_mask(plan, std::ranges::max(units), soft_RU);
  MaskedPruned largest;
  for (const Batch& batch : batches) {
    const MaskedPruned found =
        masked_pruned_difference(source.model, hard_RU.to(on.device), pruned, batch.input(), axis);
    largest.difference = std::max(largest.difference, found.difference);
    largest.limit = std::max(largest.limit, found.limit);
  }
  const auto masked_loss = [&](const at::Tensor& mask_RU) {
    return mean_loss(source.model, batches, masks_on(axis, mask_RU.to(on.device), source.model.config));
  };
  const double dense = mean_loss(source.model, batches, {}), hard = masked_loss(hard_RU),
               cut = mean_loss(pruned, batches, {});
  const double soft = soft_RU.defined() ? masked_loss(soft_RU) : dense;
  log_info(
      fmt::format("stage '{}': masked and pruned logits differ by {:.2e} (relative, fp32); held-out loss {} {:.4f}, "
                  "hard-cut mask {:.4f}, pruned {:.4f}",
                  context.stage.name, largest.difference, soft_RU.defined() ? "soft mask" : "uncut", soft, hard, cut));
  Json results = {{"masked_pruned_difference", largest.difference},
                  {soft_RU.defined() ? "soft_mask_loss" : "uncut_loss", soft},
                  {"hard_mask_loss", hard},
                  {"pruned_loss", cut}};
  if (largest.difference > kMaskedPrunedLimit) results["masked_pruned_limit"] = largest.limit;
  if (options.refit) {
    const bool masked = refits_to_soft_masks(context.recipe, options);
    const double target = masked ? soft : dense;
    results["refit"] = refit_cut(context, source.model, plan, soft_RU, calibration, target, pruned);
    const double refitted = mean_loss(pruned, batches, {});
    results["refitted_loss"] = refitted;
    log_info(fmt::format("stage '{}': refitted, held-out loss {:.4f} -> {:.4f} ({} {:.4f})", context.stage.name, cut,
                         refitted, masked ? "soft mask" : "uncut", target));
    flops += refit_flops(source.model.config, pruned.config, axis, refitted_halves(source.model.config, plan),
                         options.calibration_tokens);
  }
  save_plan(context.folder() / "prune_plan.json", plan);
  save_model(context.folder() / "model", pruned, model_facts(context));
  return {{"tokens", 0}, {"flops", flops}, {"results", results}};
}

}  // namespace

const StageKind kPrune = {.kind = "prune",
                          .seeded = true,
                          .computes = true,
                          .in_fp32 = true,  // where a cut model can be told from a masked one
                          .options = option_lines<PruneStage>,
                          .read = read,
                          .inputs = inputs,
                          .start = start,
                          .leaves_model = leaves_model,
                          .check_models = check_models,
                          .identity = identity,
                          .cost = cost,
                          .check = check_early,
                          .run = run};

bool needs_calibration(const PruneStage& prune) {
  return prune.refit || (prune.scores != "masks" && find_score(prune.scores, "").passes > 0);
}

const Stage* global_cut(const Recipe& recipe, std::string name) {
  for (; !name.empty(); name = start_of(recipe.stage(name))) {
    const Stage& stage = recipe.stage(name);
    const auto* prune = stage.find<PruneStage>();
    if (prune == nullptr || prune->scores != "masks") continue;
    const auto* masks = recipe.stage(prune->from).find<LearnMasksStage>();
    if (masks != nullptr && masks->masks.budget == "global") return &stage;
  }
  return nullptr;
}

}  // namespace coppice
