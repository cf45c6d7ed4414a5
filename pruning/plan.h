// A decision as data: which FFN channels each layer keeps. Decide, inspect, diff and apply are separate.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/model/decoder.h"
#include "src/model/parameters.h"

namespace coppice {

struct PrunePlan {
  std::string source_sha256;               // identity of the model it was made for
  std::string scores;                      // "masks", "magnitude", "random", ...
  std::vector<std::vector<int64_t>> kept;  // per layer, ascending channel numbers
};

/// The K best of each row by (score, then lower index); num_kept has one number a layer, and `widths` the channels that
/// it has (empty: as many as the table). UserError::recipe when K exceeds the channels or a score is not finite (names
/// layer and numbers).
PrunePlan make_plan(const at::Tensor& scores_LF, const std::vector<int64_t>& num_kept, std::string scores_name,
                    std::string source_sha256, const std::vector<int64_t>& widths = {});
/// Sealed JSON (coppice.prune_plan).
void save_plan(const std::filesystem::path& path, const PrunePlan& plan);
PrunePlan load_plan(const std::filesystem::path& path);
/// 0/1 mask [L, num_channels] of the plan, multiplied by `soft` where given: the hard-cut mask.
at::Tensor plan_mask(const PrunePlan& plan, int64_t num_channels, const at::Tensor& soft_LF = {});

/// What the plan leaves of one parameter, or of a slot laid out like it: every axis with role ffn keeps the plan's
/// channels.
at::Tensor slice_parameter(const Parameter& row, const at::Tensor& value, const PrunePlan& plan);
/// The smaller model: every axis with role ffn is sliced by the parameter table's roles; kept up rows are multiplied by
/// `multiplier_LF` (undefined = 1) in fp32. Widths may differ between layers, before and after. UserError::recipe when
/// the plan does not fit the model.
Model prune_model(const Model& source, const PrunePlan& plan, const at::Tensor& multiplier_LF = {});

/// max |masked - pruned| / max |masked| over logits of the given input, and what rounding may make of it: 1e-5, or
/// where it is more, 4 times what another order of the channels does to the masked model. Above that is an
/// InternalError.
inline constexpr double kMaskedPrunedLimit = 1e-5;
struct MaskedPruned {
  double difference = 0, limit = 0;
};
MaskedPruned masked_pruned_difference(const Model& source, const at::Tensor& hard_cut_mask_LF, const Model& pruned,
                                      const DecoderInput& input);

}  // namespace coppice
