// flap: Var(x_j) * sum_i W_ij^2, FLAP's WIFV (arXiv 2312.11983), variance over all n live tokens. Its second half, a
// bias of W * mean(x) for what was cut, has no place in a bias-free model and is left out. Scores are compared within a
// layer, so FLAP's z-score per layer changes nothing.
#include <ATen/ATen.h>

#include "pruning/channel_moments.h"

namespace coppice {

at::Tensor flap_scores(const at::Tensor& down_DF, const at::Tensor& variance_F) {
  return variance_F * down_DF.square().sum(0);
}

at::Tensor score_flap(const ScoreInput& input) {
  const std::vector<ChannelMoments> moments = hidden_moments(input);
  return score_by_columns(input, [&](int64_t layer) {
    return flap_scores(writer_weight(input, layer), moments[static_cast<size_t>(layer)].variance());
  });
}

}  // namespace coppice
