// The refit of a prune stage (pruning/refit.h): what it aims at, what it costs, and what it leaves in the manifest.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "src/base/json.h"
#include "src/data/windows.h"
#include "src/model/decoder.h"

namespace coppice {

struct PruneStage;
struct Recipe;
struct StageContext;

/// True where the target is the uncut layers' output under their soft masks: masks that were learned together with the
/// weights, which without them are a model that nobody trained. Else the target is that of the dense layers.
bool refits_to_soft_masks(const Recipe& recipe, const PruneStage& prune);
/// False where those soft masks are 0 for every channel that goes, so that the cut gives their output as it is.
bool refit_has_work(const Recipe& recipe, const PruneStage& prune);

/// Of a refit on `tokens` of calibration text: attention and the uncut FFN once, the cut one twice, moments and solve.
double refit_flops(const ModelConfig& source, const ModelConfig& cut, int64_t tokens);
/// What it holds beside both models and the text: residual streams of all tokens, the moments of the widest layer and
/// their factor in double, the activations of one batch.
double refit_bytes(const ModelConfig& source, const ModelConfig& cut, int64_t tokens);

/// Refits `cut` in place, logs what every layer missed and misses, and returns the manifest's "refit", in which
/// `target_loss` is the held-out loss of what it aims at. Throws Stopped between two layers.
Json refit_cut(const StageContext& context, const Model& source, const at::Tensor& soft_LF,
               std::span<const Batch> calibration, double target_loss, Model& cut);

}  // namespace coppice
