// Learned FFN masks: raw scores r per channel, standardised per layer, turned into a soft mask that sums to k by exact Soft-Top-K (CoDA 2304.04947).
//   s = (r - mean r)/(std r + 1e-6);  lambda = soft_top_k(s, k(p), epsilon(p));  optionally lambda * Top(lambda, K) for the last tenth
// p in [0, 1] is the share of mask steps done. L layers, F channels of the source, K kept.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "src/model/decoder.h"

namespace coppice {

struct MaskOptions {
  double score_lr = 0.05;  // Adam on raw scores
  double score_init_std = 0.01;
  double k_ramp = 0.2;         // share of the steps over which k falls from F to K
  double top_k_epsilon = 1.0;  // start of the anneal
  double final_top_k_epsilon = 0.05;
  double anneal_end = 0.9;  // share of the steps at which epsilon reaches its end
  std::string mask_form = "plain_then_top";
  bool freeze_weights = false;

  template <class Field>
  void visit_fields(Field& field) {
    field("score_lr", score_lr, "learning rate of the mask scores (Adam, no decay)");
    field("score_init_std", score_init_std, "start noise of the raw scores");
    field("k_ramp", k_ramp, "share of the steps over which k falls from all channels to the kept ones");
    field("top_k_epsilon", top_k_epsilon, "entropy term of Soft-Top-K while k ramps; scores are standardised, so it is a pure number");
    field("final_top_k_epsilon", final_top_k_epsilon, "its value at the end; smaller = more binary");
    field("anneal_end", anneal_end, "share of the steps at which top_k_epsilon reaches its end");
    field("mask_form", mask_form, "plain, top or plain_then_top (top in the last tenth)");
    field("freeze_weights", freeze_weights, "learn scores alone");
  }
};

/// UserError::recipe(where, ...) for a value outside its range or an unknown mask_form.
void check_mask_options(const MaskOptions& options, const std::string& where);

/// k and epsilon at share p of the steps: k falls linearly over k_ramp, epsilon geometrically from there to anneal_end.
struct MaskSchedule {
  double k = 0, epsilon = 0;
  bool top = false;  // multiply by the hard top-K set
};
MaskSchedule mask_schedule(const MaskOptions& options, double p, int64_t num_channels, int64_t num_kept);

/// Raw scores r ~ N(0, std^2), [L, F]; a function of the seed alone.
at::Tensor initial_scores(int64_t num_layers, int64_t num_channels, double std, uint64_t seed);
/// (r - mean)/(std + 1e-6) per row, std of the population, differentiable; a row of equal scores gives zeros and a zero gradient.
at::Tensor standardise_scores(const at::Tensor& raw_LF);
/// The soft mask of one step [L, F], differentiable with respect to raw_LF. Under `top` the channels outside the ceil(max(k, num_kept)) best raw scores are
/// zero, a constant for the gradient; while k still ramps, so does that set.
at::Tensor soft_mask(const at::Tensor& raw_LF, const MaskSchedule& schedule, int64_t num_kept);
/// 0/1 of the K best per row by (score, then lower index); the type of the scores.
at::Tensor hard_top_k(const at::Tensor& scores_LF, int64_t num_kept);
/// One row per layer, as the decoder takes it.
FfnMasks masks_of(const at::Tensor& mask_LF);

/// Health of one moment, per layer and overall.
struct MaskHealth {
  double sum_error = 0;        // max over layers of |sum lambda - k| / k
  double sharpness = 0;        // sum of the top K / K; 1 = binary
  double saturated_share = 0;  // lambda == 1, per k
  double outside_share = 0;    // sum lambda outside the top K, per k: what the cut throws away
  double free_share = 0;       // lambda in (0.01, 0.99), per F: channels still competing
  double entropy = 0;          // -sum lambda log lambda / (L K)
  double score_std = 0;        // of raw scores, mean over layers
  double sparsity = 0;         // 1 - sum lambda / (L F)
  std::vector<double> layer_sharpness, layer_sparsity;
};
MaskHealth mask_health(const at::Tensor& soft_mask_LF, const at::Tensor& raw_LF, double k, int64_t num_kept);
/// DivergedError when, in the second half (p > 0.5), a layer has not decided (sharpness below 1.05 K/F), or whenever a number is not finite; names layer and
/// numbers.
void check_mask_health(const MaskHealth& health, double p, int64_t num_channels, int64_t num_kept);
/// 1 - overlap of two hard masks, mean over layers.
double mask_churn(const at::Tensor& before_LF, const at::Tensor& after_LF);

}  // namespace coppice
