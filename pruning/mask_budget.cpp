#include "pruning/mask_budget.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "src/base/errors.h"
#include "src/tensors/shape.h"

namespace coppice {

void check_budget(const MaskBudget& budget, int64_t num_layers, int64_t num_channels, const std::string& where) {
  const int64_t kept = budget.num_kept, unit = budget.round_to;
  if (kept < 1 || kept > num_channels)
    throw UserError::recipe(
        where,
        fmt::format("intermediate_size: got {}, expected 1 to {} (the source's FFN channels)", kept, num_channels));
  if (!budget.global && kept % unit != 0)
    throw UserError::recipe(
        where, fmt::format("intermediate_size {} is no multiple of round_to = {}; {} and {} are the nearest", kept,
                           unit, kept / unit * unit, (kept / unit + 1) * unit));
  if (!budget.global) return;
  if (num_layers * kept % unit != 0)
    throw UserError::recipe(
        where, fmt::format("budget = \"global\" keeps {} layers x {} = {} channels, no multiple of round_to = {}",
                           num_layers, kept, num_layers * kept, unit));
  const int64_t least = num_layers * unit, most = num_layers * (num_channels / unit) * unit;
  if (num_layers * kept < least || num_layers * kept > most)
    throw UserError::recipe(where, fmt::format("budget = \"global\" keeps {} channels over {} layers; with round_to = "
                                               "{} and {} channels a layer, {} to {} are possible",
                                               num_layers * kept, num_layers, unit, num_channels, least, most));
}

std::vector<int64_t> kept_widths(const at::Tensor& scores_LF, const MaskBudget& budget) {
  check_shape(scores_LF, {-1, -1}, "scores_LF");
  const int64_t num_layers = scores_LF.size(0), num_channels = scores_LF.size(1), unit = budget.round_to;
  if (!budget.global) return std::vector<int64_t>(static_cast<size_t>(num_layers), budget.num_kept);
  const at::Tensor chosen_L = hard_top_k(scores_LF.detach().reshape({1, -1}), num_layers * budget.num_kept)
                                  .view({num_layers, num_channels})
                                  .sum(1);
  const int64_t units = num_layers * budget.num_kept / unit, most = num_channels / unit;
  COPPICE_CHECK(units * unit == num_layers * budget.num_kept && units >= num_layers && units <= num_layers * most,
                "a budget that check_budget refuses");
  // Whole multiples first, within 1 to `most`; then one each to the largest remainder (or from the smallest) until the
  // sum is right.
  std::vector<int64_t> widths(static_cast<size_t>(num_layers));
  std::vector<double> wanted(widths.size());
  for (size_t layer = 0; layer < widths.size(); ++layer) {
    wanted[layer] = chosen_L[static_cast<int64_t>(layer)].item<double>() / static_cast<double>(unit);
    widths[layer] = std::clamp(static_cast<int64_t>(wanted[layer]), int64_t{1}, most);
  }
  for (int64_t left = units - std::accumulate(widths.begin(), widths.end(), int64_t{0}); left != 0;
       left -= left > 0 ? 1 : -1) {
    const int64_t sign = left > 0 ? 1 : -1;
    size_t best = widths.size();
    const auto gain = [&](size_t layer) {
      return static_cast<double>(sign) * (wanted[layer] - static_cast<double>(widths[layer]));
    };
    for (size_t layer = 0; layer < widths.size(); ++layer)
      if (widths[layer] + sign >= 1 && widths[layer] + sign <= most &&
          (best == widths.size() || gain(layer) > gain(best)))
        best = layer;
    widths[best] += sign;
  }
  for (int64_t& width : widths) width *= unit;
  return widths;
}

at::Tensor hard_top_k(const at::Tensor& scores_LF, const std::vector<int64_t>& num_kept) {
  check_shape(scores_LF, {static_cast<int64_t>(num_kept.size()), -1}, "scores_LF");
  c10::NoGradGuard no_grad;
  const auto better = [](double a, double b) {
    return a > b || (std::isnan(a) && !std::isnan(b));
  };  // NaN first, as at::sort has it
  const int64_t num_channels = scores_LF.size(1);
  const at::Tensor exact_LF = scores_LF.detach().to(at::kCPU, at::kDouble).contiguous();
  at::Tensor hard_LF = at::zeros(scores_LF.sizes(), at::kDouble);
  std::vector<double> row(static_cast<size_t>(num_channels));
  for (size_t layer = 0; layer < num_kept.size(); ++layer) {
    const int64_t kept = num_kept[layer];
    COPPICE_CHECK(kept >= 0 && kept <= num_channels, fmt::format("K {} of {} channels", kept, num_channels));
    if (kept == 0) continue;
    const double* score = exact_LF.const_data_ptr<double>() + static_cast<int64_t>(layer) * num_channels;
    double* hard = hard_LF.mutable_data_ptr<double>() + static_cast<int64_t>(layer) * num_channels;
    std::copy_n(score, num_channels, row.begin());
    std::nth_element(row.begin(), row.begin() + (kept - 1), row.end(), better);
    const double last = row[static_cast<size_t>(kept - 1)];
    int64_t ties = kept - std::count_if(score, score + num_channels,
                                        [&](double value) { return better(value, last); });  // to the lower index
    for (int64_t f = 0; f < num_channels; ++f)
      hard[f] = better(score[f], last) || (!better(last, score[f]) && ties-- > 0) ? 1.0 : 0.0;
  }
  return hard_LF.to(scores_LF.options().requires_grad(false));
}

at::Tensor hard_top_k(const at::Tensor& scores_LF, int64_t num_kept) {
  check_shape(scores_LF, {-1, -1}, "scores_LF");
  return hard_top_k(scores_LF, std::vector<int64_t>(static_cast<size_t>(scores_LF.size(0)), num_kept));
}

at::Tensor hard_choice(const at::Tensor& scores_LF, const MaskBudget& budget) {
  return hard_top_k(scores_LF, kept_widths(scores_LF, budget));
}

}  // namespace coppice
