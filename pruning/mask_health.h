// The health of a mask at one moment, and what may be wrong with it: not finite, not decided, no better than chance,
// decided too early. L layers, F channels, K kept; under a global budget a layer has its own K.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pruning/cut_axis.h"

namespace coppice {

struct MaskHealthInput {
  at::Tensor soft_LF;         // lambda before any hard set cuts it
  at::Tensor raw_LF;          // scores that rank the channels
  at::Tensor hard_LF;         // 0/1: what the cut would keep now
  double k = 0, epsilon = 1;  // of this step; k per layer
  bool global = false;        // k holds for the layers' mean only
};

struct MaskHealth {
  double sum_error = 0;        // max over layers of |sum lambda - k| / k (global: of the mean)
  double sharpness = 0;        // sum of the top K / K; 1 = binary
  double saturated_share = 0;  // lambda == 1, per k
  double outside_share = 0;    // sum lambda outside the top K, per k: what the cut throws away
  double free_share = 0;       // lambda in (0.01, 0.99), per F: channels still competing
  double border_gap =
      0;  // (lowest kept score - highest dropped one) / epsilon, in deviations of the layer's scores; mean over layers
  double entropy = 0;    // -sum lambda log lambda / (L K)
  double score_std = 0;  // of raw scores, mean over layers
  double sparsity = 0;   // 1 - sum lambda / (L F)
  std::vector<double> layer_sharpness, layer_sparsity, layer_kept;
};
MaskHealth mask_health(const MaskHealthInput& input);
/// The same for K in every layer by raw score.
MaskHealth mask_health(const at::Tensor& soft_mask_LF, const at::Tensor& raw_LF, double k, int64_t num_kept);

/// Why the mask has collapsed, with layer and numbers; empty when it has not. In the second half (p > 0.5) a layer that
/// is cut must have decided: sharpness of at least K/F + 0.05 min(K/F, 1 - K/F). DivergedError whenever a number is not
/// finite.
std::string mask_collapse(const MaskHealth& health, double p, int64_t num_channels, CutAxis axis = CutAxis::ffn);
/// The same for held-out losses: in the second half the hard cut must be better than a random one.
std::string cut_collapse(double hard_loss, double random_loss, double p);
/// Empty, or why the decision seems to have come too early: kept sets that no longer move although no more than 0.3 of
/// the steps are done.
std::string early_decision(double churn, double p);

/// 1 - overlap of two hard masks, mean over layers.
double mask_churn(const at::Tensor& before_LF, const at::Tensor& after_LF);

}  // namespace coppice
