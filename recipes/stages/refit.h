// The refit of a prune stage (pruning/refit.h): what it aims at, what it costs, and what it leaves in the manifest.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "pruning/plan.h"
#include "src/base/json.h"
#include "src/data/windows.h"
#include "src/model/decoder.h"

namespace coppice {

struct PruneStage;
struct Recipe;
struct StageContext;

/// True where the target is what the source gives under its soft masks: masks that were learned together with the
/// weights, which without them are a model that nobody trained. Else the target is the dense source's.
bool refits_to_soft_masks(const Recipe& recipe, const PruneStage& prune);
/// False where those soft masks are 0 for every unit that goes, so that the cut gives what they give as it is.
bool refit_has_work(const Recipe& recipe, const PruneStage& prune);

/// The halves whose matrices a cut of that axis solves, before its plan is there. Of layers: as if each that goes left
/// a gap of its own behind a layer that stays.
std::vector<int64_t> expected_halves(const ModelConfig& source, const ModelConfig& cut, CutAxis axis);
/// Of a refit of those halves on `tokens` of calibration text: the cut model once, what is solved in it once more, what
/// the source has in its place once, moments and solve.
double refit_flops(const ModelConfig& source, const ModelConfig& cut, CutAxis axis, std::span<const int64_t> halves,
                   int64_t tokens);
/// What it holds beside both models and the text: residual streams of all tokens, the moments of the widest matrix and
/// their factor in double, the activations of one batch.
double refit_bytes(const ModelConfig& source, const ModelConfig& cut, CutAxis axis, int64_t tokens);

/// Refits `cut`, which is `source` after `plan`, in place, logs what every half missed and misses, and returns the
/// manifest's "refit", in which `target_loss` is the held-out loss of what it aims at. Throws Stopped between two
/// halves.
Json refit_cut(const StageContext& context, const Model& source, const PrunePlan& plan, const at::Tensor& soft_RU,
               std::span<const Batch> calibration, double target_loss, Model& cut);

}  // namespace coppice
