#include "recipes/stages/refit.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pruning/cut_axis.h"
#include "pruning/refit.h"
#include "recipes/stages/calibration.h"
#include "recipes/stages/context.h"
#include "recipes/stages/learn_masks.h"
#include "recipes/stages/prune.h"
#include "src/base/failpoint.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/model/parameters.h"

namespace coppice {

bool refits_to_soft_masks(const Recipe& recipe, const PruneStage& prune) {
  return prune.scores == "masks" && !recipe.stage(prune.from).get<LearnMasksStage>().masks.freeze_weights;
}

bool refit_has_work(const Recipe& recipe, const PruneStage& prune) {
  if (!refits_to_soft_masks(recipe, prune)) return true;
  const MaskOptions& masks = recipe.stage(prune.from).get<LearnMasksStage>().masks;
  if (masks.mask_method == "straight_through") return false;
  if (masks.mask_method == "hard_concrete")
    return masks.hard_concrete != "llm_shearing";  // the others keep what they expect to live
  return masks.mask_form == "plain";
}

double refit_flops(const ModelConfig& source, const ModelConfig& cut, int64_t tokens) {
  const auto hidden = static_cast<double>(source.hidden_size);
  double of_token = forward_flops_per_token(source, kCalibrationSeqLen) -
                    2 * hidden * static_cast<double>(source.vocab_size);  // no logits
  double of_solve = 0;
  for (const int64_t channels : cut.intermediate_size) {
    const auto width = static_cast<double>(channels);
    of_token += 2 * (6 * hidden * width);                // gate, up and down of the cut, before and after
    of_token += 2 * width * width + 2 * hidden * width;  // moments
    of_solve += width * width * width / 3 + 2 * hidden * width * width;  // Cholesky, and a row of down_proj at a time
  }
  return static_cast<double>(whole_batches(tokens)) * of_token + of_solve;
}

double refit_bytes(const ModelConfig& source, const ModelConfig& cut, int64_t tokens) {
  constexpr double kFloat = 4, kDouble = 8, kBatch = kCalibrationRows * kCalibrationSeqLen;
  const auto hidden = static_cast<double>(source.hidden_size),
             uncut = static_cast<double>(std::ranges::max(source.intermediate_size)),
             width = static_cast<double>(std::ranges::max(cut.intermediate_size));
  const double streams = kFloat * hidden * static_cast<double>(whole_batches(tokens));
  const double moments = kDouble * (4 * width * width + 6 * hidden * width);  // G, damped, its factor, LAPACK's copy
  const double batch = kBatch * (kFloat * (3 * uncut + 4 * width + 8 * hidden) + kDouble * (width + 3 * hidden));
  return streams + moments + batch;
}

Json refit_cut(const StageContext& context, const Model& source, const at::Tensor& soft_LF,
               std::span<const Batch> calibration, double target_loss, Model& cut) {
  const auto& options = context.stage.get<PruneStage>();
  const bool masked = refits_to_soft_masks(context.recipe, options);
  const at::Device device = source.arena->placement().device;
  const DecoderMasks target_masks = masked ? masks_on(CutAxis::ffn, soft_LF.to(device), source.config) : DecoderMasks{};
  const auto num_layers = static_cast<size_t>(cut.config.num_hidden_layers);
  Progress progress(context.stage.name, num_layers, "layer");
  progress.update(0, {});  // the time left is judged from here on
  Json layers = Json::array();
  refit(source, target_masks, calibration, options.refit_damping, cut, [&](const LayerRefit& layer) {
    log_info(
        fmt::format("stage '{}', layer {}: the cut misses {:.2f}% of the uncut layer's output on calibration "
                    "text, refitted {:.2f}%",
                    context.stage.name, layers.size(), 100 * layer.before, 100 * layer.after));
    layers.push_back({{"layer", layers.size()}, {"before", layer.before}, {"after", layer.after}});
    progress.update(layers.size(), {});
    (void)COPPICE_FAILPOINT("refit.after_layer");
    if (stop_requested() && layers.size() < num_layers)
      throw Stopped(fmt::format("stopped while refitting '{}', layer {} of {}; run again to do the stage anew",
                                context.stage.name, layers.size(), num_layers));
  });
  progress.finish(fmt::format("{} layers refitted", num_layers));
  return {{"target", masked ? "soft masks" : "dense layers"},
          {"target_loss", target_loss},
          {"damping", options.refit_damping},
          {"layers", layers}};
}

}  // namespace coppice
