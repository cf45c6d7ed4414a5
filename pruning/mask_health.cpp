#include "pruning/mask_health.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "pruning/mask_budget.h"
#include "src/base/errors.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr double kDecided =
    0.05;  // of K/F, the sharpness of an undecided mask, or of what is left to 1 in a layer that keeps more than half
constexpr double kUndecidedFrom = 0.5;  // share of the steps before which flat, or no better than chance, is normal
constexpr double kEarly = 0.3;          // share of the steps up to which kept sets should still move

}  // namespace

MaskHealth mask_health(const MaskHealthInput& input) {
  const int64_t num_layers = input.raw_LF.size(0), num_channels = input.raw_LF.size(1);
  check_shape(input.soft_LF, {num_layers, num_channels}, "soft_LF");
  check_shape(input.hard_LF, {num_layers, num_channels}, "hard_LF");
  c10::NoGradGuard no_grad;
  const auto doubles = [](const at::Tensor& value) { return value.detach().to(at::kCPU, at::kDouble).contiguous(); };
  const at::Tensor soft_LF = doubles(input.soft_LF), hard_LF = doubles(input.hard_LF), raw_LF = doubles(input.raw_LF);
  const at::Tensor std_L = raw_LF.std(1, c10::Scalar(0)).contiguous();
  const double layers = static_cast<double>(num_layers), channels = static_cast<double>(num_channels), k = input.k;

  MaskHealth health;
  double total = 0;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const double* soft = soft_LF.const_data_ptr<double>() + layer * num_channels;
    const double* hard = hard_LF.const_data_ptr<double>() + layer * num_channels;
    const double* raw = raw_LF.const_data_ptr<double>() + layer * num_channels;
    double sum = 0, inside = 0, saturated = 0, competing = 0, entropy = 0, kept = 0;
    double lowest_kept = std::numeric_limits<double>::infinity(), highest_dropped = -lowest_kept;
    for (int64_t f = 0; f < num_channels; ++f) {
      sum += soft[f];
      inside += soft[f] * hard[f];
      kept += hard[f];
      saturated += soft[f] == 1.0 ? 1.0 : 0.0;
      competing += soft[f] > 0.01 && soft[f] < 0.99 ? 1.0 : 0.0;
      if (soft[f] > 0 && soft[f] != 1) entropy -= soft[f] * std::log(soft[f]);
      if (hard[f] > 0) lowest_kept = std::min(lowest_kept, raw[f]);
      if (hard[f] == 0) highest_dropped = std::max(highest_dropped, raw[f]);
    }
    total += sum;
    const double error = std::abs(sum - k) / k;
    if (!input.global || std::isnan(error))
      health.sum_error = std::isnan(error) ? error : std::max(health.sum_error, error);
    health.saturated_share += saturated / k / layers;
    health.outside_share += (sum - inside) / k / layers;
    health.free_share += competing / channels / layers;
    health.entropy += entropy / (layers * kept);
    const double std = std_L.const_data_ptr<double>()[layer];
    if (kept < channels && std > 0) health.border_gap += (lowest_kept - highest_dropped) / std / input.epsilon / layers;
    health.layer_kept.push_back(kept);
    health.layer_sharpness.push_back(inside / kept);
    health.layer_sparsity.push_back(1.0 - sum / channels);
    health.sharpness += health.layer_sharpness.back() / layers;
    health.sparsity += health.layer_sparsity.back() / layers;
  }
  if (input.global && !std::isnan(health.sum_error)) health.sum_error = std::abs(total - layers * k) / (layers * k);
  health.score_std = std_L.mean().item<double>();
  return health;
}

MaskHealth mask_health(const at::Tensor& soft_mask_LF, const at::Tensor& raw_LF, double k, int64_t num_kept) {
  return mask_health({.soft_LF = soft_mask_LF, .raw_LF = raw_LF, .hard_LF = hard_top_k(raw_LF, num_kept), .k = k});
}

std::string mask_collapse(const MaskHealth& health, double p, int64_t num_channels, CutAxis axis) {
  if (!std::isfinite(health.score_std))
    throw DivergedError(fmt::format("mask scores are not finite: standard deviation {}", health.score_std));
  for (size_t layer = 0; layer < health.layer_sharpness.size(); ++layer) {
    const double sharpness = health.layer_sharpness[layer],
                 flat = health.layer_kept[layer] / static_cast<double>(num_channels);
    const std::string what =
        fmt::format("{}{}", row_of(axis).per_layer ? fmt::format("layer {}: ", layer) : "", row_of(axis).mask);
    if (!std::isfinite(sharpness)) throw DivergedError(what + " is not finite");
    if (p > kUndecidedFrom && flat < 1.0 && sharpness < flat + kDecided * std::min(flat, 1.0 - flat))
      return fmt::format(
          "{} has not decided after {:.0f} % of its steps: sharpness {:.3f}, an undecided mask has {:.3f} (keep {:.0f} "
          "of {}); raise score_lr or the tokens of the stage",
          what, 100 * p, sharpness, flat, health.layer_kept[layer], num_channels);
  }
  return {};
}

std::string cut_collapse(double hard_loss, double random_loss, double p) {
  if (p <= kUndecidedFrom || std::isnan(random_loss) || hard_loss < random_loss) return {};
  return fmt::format(
      "after {:.0f} % of its steps the learned cut is no better than a random one: held-out loss {:.4f} against "
      "{:.4f}; raise score_lr or the tokens of the "
      "stage",
      100 * p, hard_loss, random_loss);
}

std::string early_decision(double churn, double p) {
  if (p > kEarly || churn > 0) return {};
  return fmt::format(
      "the kept sets stopped moving after {:.0f} % of the steps: the mask decides before it has learned; lower "
      "score_lr or raise top_k_epsilon",
      100 * p);
}

double mask_churn(const at::Tensor& before_LF, const at::Tensor& after_LF) {
  check_shape(after_LF, {before_LF.size(0), before_LF.size(1)}, "after_LF");
  const at::Tensor both_L = (before_LF * after_LF).to(at::kDouble).sum(1), before_L = before_LF.to(at::kDouble).sum(1);
  return 1.0 - (both_L / before_L).mean().item<double>();
}

}  // namespace coppice
