#include "recipes/stages/refit.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "pruning/cut_axis.h"
#include "pruning/refit.h"
#include "recipes/stages/calibration.h"
#include "recipes/stages/context.h"
#include "recipes/stages/learn_masks.h"
#include "recipes/stages/prune.h"
#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/model/decoder_halves.h"
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

namespace {

/// FLOPs a token of one half of each kind in a layer.
struct HalfFlops {
  double attention = 0;
  std::vector<double> ffn;  // by layer
  double all() const {
    return attention * static_cast<double>(ffn.size()) + std::accumulate(ffn.begin(), ffn.end(), 0.0);
  }
};

HalfFlops half_flops(const ModelConfig& config) {
  const auto hidden = static_cast<double>(config.hidden_size);
  HalfFlops flops;
  for (const int64_t channels : config.intermediate_size)
    flops.ffn.push_back(6 * hidden * static_cast<double>(channels));  // gate, up and down
  const double logits = 2 * hidden * static_cast<double>(config.vocab_size);
  flops.attention = (forward_flops_per_token(config, kCalibrationSeqLen) - logits - flops.all()) /
                    static_cast<double>(config.num_hidden_layers);
  return flops;
}

double head_columns(const ModelConfig& config) {
  return static_cast<double>(config.num_attention_heads * config.head_dim);
}

double widest_ffn(const ModelConfig& config) { return static_cast<double>(std::ranges::max(config.intermediate_size)); }

/// Rows that enter the widest matrix that is solved.
double widest(const ModelConfig& config, CutAxis axis) {
  switch (axis) {
    case CutAxis::ffn:
      return widest_ffn(config);
    case CutAxis::heads:
      return head_columns(config);
    case CutAxis::layers:
    case CutAxis::hidden:
      return std::max(widest_ffn(config), head_columns(config));
  }
  throw InternalError("an axis without a refit");
}

}  // namespace

std::vector<int64_t> expected_halves(const ModelConfig& source, const ModelConfig& cut, CutAxis axis) {
  if (axis != CutAxis::layers) return refitted_halves(source, {.axis = axis});
  const int64_t gaps = std::min(source.num_hidden_layers - cut.num_hidden_layers, cut.num_hidden_layers);
  std::vector<int64_t> halves;
  for (int64_t gap = 0; gap < gaps; ++gap) halves.push_back(2 * gap + 1);
  return halves;
}

double refit_flops(const ModelConfig& source, const ModelConfig& cut, CutAxis axis, std::span<const int64_t> halves,
                   int64_t tokens) {
  const HalfFlops uncut = half_flops(source), left = half_flops(cut);
  const auto hidden = static_cast<double>(cut.hidden_size);
  double of_token = left.all(), of_solve = 0;
  if (axis == CutAxis::layers)  // those of the gaps, once
    of_token += uncut.all() * static_cast<double>(source.num_hidden_layers - cut.num_hidden_layers) /
                static_cast<double>(source.num_hidden_layers);
  for (const int64_t half : halves) {
    const auto layer = static_cast<size_t>(half / 2);
    const bool is_ffn = half % 2 != 0;
    const double width = is_ffn ? static_cast<double>(cut.intermediate_size[layer]) : head_columns(cut);
    of_token += is_ffn ? uncut.ffn[layer] + left.ffn[layer] : uncut.attention + left.attention;
    of_token += 2 * width * width + 2 * hidden * width;                  // moments
    of_solve += width * width * width / 3 + 2 * hidden * width * width;  // Cholesky, and a row at a time
  }
  return static_cast<double>(whole_batches(tokens)) * of_token + of_solve;
}

double refit_bytes(const ModelConfig& source, const ModelConfig& cut, CutAxis axis, int64_t tokens) {
  constexpr double kFloat = 4, kDouble = 8, kBatch = kCalibrationRows * kCalibrationSeqLen;
  const auto hidden = static_cast<double>(source.hidden_size);
  const double uncut = widest(source, axis), width = widest(cut, axis);
  const double held = static_cast<double>(cut.hidden_size) + (axis == CutAxis::hidden ? hidden : 0);
  const double streams = kFloat * held * static_cast<double>(whole_batches(tokens));
  const double moments = kDouble * (4 * width * width + 6 * hidden * width);  // G, damped, its factor, LAPACK's copy
  const double batch = kBatch * (kFloat * (3 * uncut + 4 * width + 8 * hidden) + kDouble * (width + 3 * hidden));
  return streams + moments + batch;
}

Json refit_cut(const StageContext& context, const Model& source, const PrunePlan& plan, const at::Tensor& soft_RU,
               std::span<const Batch> calibration, double target_loss, Model& cut) {
  const auto& options = context.stage.get<PruneStage>();
  const bool masked = refits_to_soft_masks(context.recipe, options);
  const at::Device device = source.arena->placement().device;
  const DecoderMasks target_masks = masked ? masks_on(plan.axis, soft_RU.to(device), source.config) : DecoderMasks{};
  const auto num_halves = 2 * static_cast<size_t>(cut.config.num_hidden_layers);
  Progress progress(context.stage.name, num_halves, "matrix");
  progress.update(0, {});  // the time left is judged from here on
  Json solved = Json::array();
  refit(source, target_masks, plan, calibration, options.refit_damping, cut, [&](int64_t half, const HalfRefit* of) {
    if (of != nullptr) {
      const char* weight = writer_of_half(half);
      log_info(
          fmt::format("stage '{}', layer {}: {} of the cut misses {:.2f}% of what the source gives on calibration "
                      "text, refitted {:.2f}%",
                      context.stage.name, half / 2, weight, 100 * of->before, 100 * of->after));
      solved.push_back({{"layer", half / 2}, {"weight", weight}, {"before", of->before}, {"after", of->after}});
    }
    const auto done = static_cast<size_t>(half) + 1;
    progress.update(done, {});
    (void)COPPICE_FAILPOINT("refit.after_half");
    if (stop_requested() && done < num_halves)
      throw Stopped(fmt::format("stopped while refitting '{}', behind matrix {} of {}; run again to do the stage anew",
                                context.stage.name, done, num_halves));
  });
  progress.finish(fmt::format("{} of {} matrices solved anew", solved.size(), num_halves));
  return {{"target", masked ? "soft masks" : "dense layers"},
          {"target_loss", target_loss},
          {"damping", options.refit_damping},
          {"layers", solved}};  // a matrix each
}

}  // namespace coppice
