// prune: scores -> plan -> smaller weights; masked and pruned logits are compared and printed every time.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pruning/mask_file.h"
#include "pruning/plan.h"
#include "pruning/scores.h"
#include "pruning/soft_masks.h"
#include "recipes/stages/stages.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "student/targets.h"

namespace coppice {
namespace {

double mean_loss(const Model& model, const std::vector<Batch>& batches, const FfnMasks& masks) {
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

}  // namespace

void check_prune(const BeforeWork& before, const Stage& stage) {
  const auto& options = std::get<PruneStage>(stage.options);
  const auto* masks = std::get_if<LearnMasksStage>(&before.recipe.stage(options.from).options);
  if (options.scores != "masks" || masks == nullptr || masks->masks.budget != "global") return;
  if (before.recipe.models.at(options.target).intermediate_size !=
      before.recipe.models.at(masks->target).intermediate_size)
    throw UserError::recipe(stage.where, fmt::format("stage '{}' learned what each layer keeps (budget = \"global\") "
                                                     "for model.{}; give this stage target = \"{}\"",
                                                     options.from, masks->target, masks->target));
}

Json run_prune(StageContext& context) {
  const auto& options = std::get<PruneStage>(context.stage.options);
  const LoadedModel source = load_model(context.model_folder(options.from));
  std::vector<int64_t> num_kept = context.recipe.models.at(options.target).intermediate_size;
  const std::vector<int64_t>& channels = source.model.config.intermediate_size;

  at::Tensor scores_LF, soft_LF;
  double flops = 0;
  if (options.scores == "masks") {
    const std::filesystem::path path = context.run.stage(options.from) / "masks.h5";
    const MaskFile masks = load_masks(path);
    if (masks.source_sha256 != source.sha256)
      throw UserError::bad_file(path.string(),
                                fmt::format("these masks belong to another model: they name {}, stage '{}' is {}",
                                            masks.source_sha256, options.from, source.sha256));
    if (masks.global) num_kept = masks.widths();  // learned under one budget for all layers
    scores_LF = masks.scores_LF;
    soft_LF = masks.soft_LF;
  } else {
    const ScoreRow& row = find_score(options.scores, context.stage.where);
    const std::vector<Batch> batches =
        row.passes > 0 ? calibration_batches(context, options.calibration_tokens) : std::vector<Batch>();
    scores_LF = row.compute({.model = &source.model, .batches = batches, .seed = context.recipe.seed, .pad = true});
    keep_narrow_layers(context.stage.name, channels, num_kept);
    flops = calibration_flops(source.model.config, row, options.calibration_tokens);
  }
  const PrunePlan plan = make_plan(scores_LF, num_kept, options.scores, source.sha256, channels);
  const Model pruned = prune_model(source.model, plan, soft_LF);

  const std::vector<Batch> batches = check_batches(context.data, kCheckSeqLen, 4);
  const at::Tensor hard_LF = plan_mask(plan, std::ranges::max(channels), soft_LF);
  double difference = 0;
  for (const Batch& batch : batches)
    difference = std::max(difference, masked_pruned_difference(source.model, hard_LF, pruned, batch.input()));
  const double dense = mean_loss(source.model, batches, {}),
               hard = mean_loss(source.model, batches, masks_of(hard_LF, channels)),
               cut = mean_loss(pruned, batches, {});
  const double soft = soft_LF.defined() ? mean_loss(source.model, batches, masks_of(soft_LF, channels)) : dense;
  log_info(
      fmt::format("stage '{}': masked and pruned logits differ by {:.2e} (relative, fp32); held-out loss {} {:.4f}, "
                  "hard-cut mask {:.4f}, pruned {:.4f}",
                  context.stage.name, difference, soft_LF.defined() ? "soft mask" : "uncut", soft, hard, cut));
  save_plan(context.folder() / "prune_plan.json", plan);
  save_model(context.folder() / "model", pruned, model_facts(context));
  return {{"tokens", 0},
          {"flops", flops},
          {"results",
           {{"masked_pruned_difference", difference},
            {soft_LF.defined() ? "soft_mask_loss" : "uncut_loss", soft},
            {"hard_mask_loss", hard},
            {"pruned_loss", cut}}}};
}

}  // namespace coppice
