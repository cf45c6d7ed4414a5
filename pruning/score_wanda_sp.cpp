// wanda_sp: mean_i |W_ij| * sqrt(mean over live tokens of x_j^2). Wanda (arXiv 2306.11695) summed over a channel's
// weights, as the FLAP authors' code (CASIA-IVA-Lab/FLAP, lib/prune.py) does; the threshold lies within the layer.
#include <ATen/ATen.h>

#include "pruning/channel_moments.h"

namespace coppice {

at::Tensor wanda_sp_scores(const at::Tensor& down_DF, const at::Tensor& mean_square_F) {
  return down_DF.abs().mean(0) * mean_square_F.sqrt();
}

at::Tensor score_wanda_sp(const ScoreInput& input) {
  const std::vector<ChannelMoments> moments = hidden_moments(input);
  return score_by_columns(input, [&](int64_t layer) {
    return wanda_sp_scores(writer_weight(input, layer), moments[static_cast<size_t>(layer)].mean_square());
  });
}

}  // namespace coppice
