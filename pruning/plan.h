// A decision as data: which units of an axis (FFN channels, groups of attention heads, layers, dimensions of the
// residual stream) each row keeps. Decide, inspect, diff and apply are separate.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pruning/cut_axis.h"
#include "src/base/json.h"
#include "src/model/decoder.h"
#include "src/model/parameters.h"

namespace coppice {

struct PrunePlan {
  std::string source_sha256;               // identity of the model it was made for
  std::string scores;                      // "masks", "magnitude", "random", ...
  std::vector<std::vector<int64_t>> kept;  // per row, ascending numbers of units
  CutAxis axis = CutAxis::ffn;
};

/// The K best of each row by (score, then lower index); num_kept has one number a row, and `units` how many the row has
/// (empty: as many as the table). UserError::recipe when K exceeds them or a score is not finite (names row and
/// numbers).
PrunePlan make_plan(const at::Tensor& scores_RU, const std::vector<int64_t>& num_kept, std::string scores_name,
                    std::string source_sha256, const std::vector<int64_t>& units = {}, CutAxis axis = CutAxis::ffn);
/// Sealed JSON (coppice.prune_plan): version 1 of FFN channels, version 2 of the axis that it names.
void save_plan(const std::filesystem::path& path, const PrunePlan& plan);
PrunePlan load_plan(const std::filesystem::path& path);
/// 0/1 mask [R, num_units] of the plan, multiplied by `soft` where given: the hard-cut mask.
at::Tensor plan_mask(const PrunePlan& plan, int64_t num_units, const at::Tensor& soft_RU = {});

/// What the plan leaves of one parameter of `source` in a layer that stays, or of a slot laid out like it: every axis
/// whose role the plan cuts keeps the rows of the units that stay.
at::Tensor slice_parameter(const ModelConfig& source, const Parameter& row, const at::Tensor& value,
                           const PrunePlan& plan);
/// The smaller model, where the source is. `multiplier_RU` (undefined = 1) goes into the weights in fp32: into the kept
/// rows of up_proj, of v_proj and its bias, or for layers of both. Widths may differ between layers, before and after.
/// UserError::recipe when the plan does not fit the model.
Model prune_model(const Model& source, const PrunePlan& plan, const at::Tensor& multiplier_RU = {});

/// max |masked - pruned| / max |masked| over logits of the given input, and what rounding may make of it: 1e-5, or
/// where it is more, 4 times what another order of the units (for heads and layers: of heads and FFN channels) does to
/// the masked model. Above that is an InternalError.
inline constexpr double kMaskedPrunedLimit = 1e-5;
struct MaskedPruned {
  double difference = 0, limit = 0;
};
MaskedPruned masked_pruned_difference(const Model& source, const at::Tensor& hard_cut_mask_RU, const Model& pruned,
                                      const DecoderInput& input, CutAxis axis = CutAxis::ffn);

}  // namespace coppice
