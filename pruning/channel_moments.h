// Mean and variance of every FFN channel over live tokens, batch by batch, in double: merging by Chan et al. (1983),
// which for batches of one token is Welford's rule. No batch is lost and no sum of squares is subtracted from a square
// of sums.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "pruning/scores.h"

namespace coppice {

class ChannelMoments {
 public:
  /// Adds the tokens of hidden_NF whose live_N (bool, any shape of N elements) is true.
  void add(const at::Tensor& hidden_NF, const at::Tensor& live_N);
  int64_t count() const { return count_; }
  const at::Tensor& mean() const { return mean_F_; }  // [F] double
  at::Tensor variance() const;                        // over n, not n - 1
  at::Tensor mean_square() const;

 private:
  int64_t count_ = 0;
  at::Tensor mean_F_, spread_F_;  // spread = sum of squared distances from the mean
};

/// Moments of every layer over all calibration batches; InternalError without a live token.
std::vector<ChannelMoments> hidden_moments(const ScoreInput& input);

}  // namespace coppice
