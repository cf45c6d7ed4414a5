#include "pruning/soft_masks.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/tensors/ops.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr double kStdEpsilon = 1e-6;
constexpr double kTopFrom = 0.9;        // plain_then_top: share of the steps after which only the hard set counts
constexpr double kFlatFactor = 1.05;    // sharpness of an undecided mask is K/F
constexpr double kUndecidedFrom = 0.5;  // share of the steps before which flat is normal

}  // namespace

void check_mask_options(const MaskOptions& options, const std::string& where) {
  const auto refuse = [&](const char* key, const std::string& got, const char* expected) {
    throw UserError::recipe(where, fmt::format("{}: got {}, expected {}", key, got, expected));
  };
  const auto number = [](double value) { return fmt::format("{:g}", value); };
  if (!(options.score_lr > 0)) refuse("score_lr", number(options.score_lr), "a number above 0");
  if (!(options.score_init_std >= 0)) refuse("score_init_std", number(options.score_init_std), "a number of at least 0");
  if (!(options.k_ramp >= 0 && options.k_ramp <= 1)) refuse("k_ramp", number(options.k_ramp), "a share between 0 and 1");
  if (!(options.top_k_epsilon > 0)) refuse("top_k_epsilon", number(options.top_k_epsilon), "a number above 0");
  if (!(options.final_top_k_epsilon > 0)) refuse("final_top_k_epsilon", number(options.final_top_k_epsilon), "a number above 0");
  if (!(options.anneal_end >= options.k_ramp && options.anneal_end <= 1)) refuse("anneal_end", number(options.anneal_end), "a share between k_ramp and 1");
  if (options.mask_form != "plain" && options.mask_form != "top" && options.mask_form != "plain_then_top")
    refuse("mask_form", "'" + printable(options.mask_form) + "'", "plain, top or plain_then_top");
}

MaskSchedule mask_schedule(const MaskOptions& options, double p, int64_t num_channels, int64_t num_kept) {
  COPPICE_CHECK(num_kept > 0 && num_kept <= num_channels, fmt::format("K {} of {} channels", num_kept, num_channels));
  const double ramp = p >= options.k_ramp ? 1.0 : p / options.k_ramp;
  const double anneal = p >= options.anneal_end ? 1.0 : p <= options.k_ramp ? 0.0 : (p - options.k_ramp) / (options.anneal_end - options.k_ramp);
  MaskSchedule schedule;
  schedule.k = static_cast<double>(num_channels) - static_cast<double>(num_channels - num_kept) * ramp;
  schedule.epsilon = options.top_k_epsilon * std::pow(options.final_top_k_epsilon / options.top_k_epsilon, anneal);
  schedule.top = options.mask_form == "top" || (options.mask_form == "plain_then_top" && p >= kTopFrom);
  return schedule;
}

at::Tensor initial_scores(int64_t num_layers, int64_t num_channels, double std, uint64_t seed) {
  at::Tensor raw_LF = at::empty({num_layers, num_channels}, at::kFloat);
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    std::span<float> row(raw_LF.mutable_data_ptr<float>() + layer * num_channels, static_cast<size_t>(num_channels));
    fill_normal(row, std, seed, Purpose::mask_scores, static_cast<uint64_t>(layer));
  }
  return raw_LF;
}

at::Tensor standardise_scores(const at::Tensor& raw_LF) {
  check_shape(raw_LF, {-1, -1}, "raw_LF");
  const at::Tensor std_L1 = raw_LF.std(1, /*correction=*/c10::Scalar(0), /*keepdim=*/true);
  return (raw_LF - raw_LF.mean(1, /*keepdim=*/true)) / (std_L1 + kStdEpsilon);
}

at::Tensor soft_mask(const at::Tensor& raw_LF, const MaskSchedule& schedule, int64_t num_kept) {
  const at::Tensor soft_LF = soft_top_k(standardise_scores(raw_LF), schedule.k, schedule.epsilon);
  if (!schedule.top) return soft_LF;
  // By raw score, as the plan decides: standardising may round two scores into a tie.
  const int64_t top = std::max(num_kept, static_cast<int64_t>(std::ceil(schedule.k)));
  return soft_LF * hard_top_k(raw_LF.detach(), top);
}

at::Tensor hard_top_k(const at::Tensor& scores_LF, int64_t num_kept) {
  check_shape(scores_LF, {-1, -1}, "scores_LF");
  COPPICE_CHECK(num_kept >= 0 && num_kept <= scores_LF.size(1), fmt::format("K {} of {} channels", num_kept, scores_LF.size(1)));
  c10::NoGradGuard no_grad;
  // A stable descending sort leaves equal scores in the order of their index.
  const at::Tensor order_LF = std::get<1>(scores_LF.sort(/*stable=*/true, /*dim=*/1, /*descending=*/true));
  return at::zeros_like(scores_LF).scatter_(1, order_LF.narrow(1, 0, num_kept), 1.0);
}

FfnMasks masks_of(const at::Tensor& mask_LF) {
  check_shape(mask_LF, {-1, -1}, "mask_LF");
  return FfnMasks{mask_LF.unbind(0)};
}

MaskHealth mask_health(const at::Tensor& soft_mask_LF, const at::Tensor& raw_LF, double k, int64_t num_kept) {
  check_shape(soft_mask_LF, {raw_LF.size(0), raw_LF.size(1)}, "soft_mask_LF");
  c10::NoGradGuard no_grad;
  const int64_t num_layers = raw_LF.size(0), num_channels = raw_LF.size(1);
  const at::Tensor soft_LF = soft_mask_LF.detach().to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor hard_LF = hard_top_k(raw_LF.detach(), num_kept).to(at::kCPU, at::kDouble).contiguous();
  const double layers = static_cast<double>(num_layers), kept = static_cast<double>(num_kept), channels = static_cast<double>(num_channels);

  MaskHealth health;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const double* soft = soft_LF.const_data_ptr<double>() + layer * num_channels;
    const double* hard = hard_LF.const_data_ptr<double>() + layer * num_channels;
    double sum = 0, inside = 0, saturated = 0, competing = 0, entropy = 0;
    for (int64_t f = 0; f < num_channels; ++f) {
      sum += soft[f];
      inside += soft[f] * hard[f];
      saturated += soft[f] == 1.0 ? 1.0 : 0.0;
      competing += soft[f] > 0.01 && soft[f] < 0.99 ? 1.0 : 0.0;
      if (soft[f] > 0) entropy -= soft[f] * std::log(soft[f]);
    }
    const double error = std::abs(sum - k) / k;
    health.sum_error = std::isnan(error) ? error : std::max(health.sum_error, error);
    health.saturated_share += saturated / k / layers;
    health.outside_share += (sum - inside) / k / layers;
    health.free_share += competing / channels / layers;
    health.entropy += entropy / (layers * kept);
    health.layer_sharpness.push_back(inside / kept);
    health.layer_sparsity.push_back(1.0 - sum / channels);
    health.sharpness += health.layer_sharpness.back() / layers;
    health.sparsity += health.layer_sparsity.back() / layers;
  }
  health.score_std = raw_LF.detach().to(at::kDouble).std(1, c10::Scalar(0)).mean().item<double>();
  return health;
}

void check_mask_health(const MaskHealth& health, double p, int64_t num_channels, int64_t num_kept) {
  const double flat = kFlatFactor * static_cast<double>(num_kept) / static_cast<double>(num_channels);
  if (!std::isfinite(health.score_std)) throw DivergedError(fmt::format("mask scores are not finite: standard deviation {}", health.score_std));
  for (size_t layer = 0; layer < health.layer_sharpness.size(); ++layer) {
    const double sharpness = health.layer_sharpness[layer];
    if (!std::isfinite(sharpness)) throw DivergedError(fmt::format("layer {}: the FFN mask is not finite", layer));
    if (p > kUndecidedFrom && num_kept < num_channels && sharpness < std::min(1.0, flat))
      throw DivergedError(
          fmt::format("layer {}: the FFN mask has not decided after {:.0f} % of its steps: sharpness {:.3f}, an undecided mask has {:.3f} (keep {} of {}); "
                      "raise score_lr or the tokens of the stage",
                      layer, 100 * p, sharpness, flat / kFlatFactor, num_kept, num_channels));
  }
}

double mask_churn(const at::Tensor& before_LF, const at::Tensor& after_LF) {
  check_shape(after_LF, {before_LF.size(0), before_LF.size(1)}, "after_LF");
  const at::Tensor both_L = (before_LF * after_LF).to(at::kDouble).sum(1), before_L = before_LF.to(at::kDouble).sum(1);
  return 1.0 - (both_L / before_L).mean().item<double>();
}

}  // namespace coppice
