// How many channels a cut keeps: K in every layer, or L K over all of them, each layer a multiple of round_to.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace coppice {

struct MaskBudget {
  int64_t num_kept = 0;  // K: of every layer, or the layers' mean
  bool global = false;
  int64_t round_to = 1;
};

/// UserError::recipe(where) with the numbers when no cut can meet it: K above the F channels or below 1, or not
/// divisible as round_to asks.
void check_budget(const MaskBudget& budget, int64_t num_layers, int64_t num_channels, const std::string& where);

/// Kept channels of each layer under these scores. Per layer: K. Global: as many as the layer has among the L K best of
/// all (ties: lower layer, then lower index), rounded to multiples by largest remainder, at least one multiple and at
/// most F a layer; the sum is exactly L K.
std::vector<int64_t> kept_widths(const at::Tensor& scores_LF, const MaskBudget& budget);

/// 0/1 of the K best per row by (score, then lower index); the type of the scores.
at::Tensor hard_top_k(const at::Tensor& scores_LF, int64_t num_kept);
/// The same with a number a row.
at::Tensor hard_top_k(const at::Tensor& scores_LF, const std::vector<int64_t>& num_kept);
/// 0/1 of what the budget keeps.
at::Tensor hard_choice(const at::Tensor& scores_LF, const MaskBudget& budget);

}  // namespace coppice
