// activation: sqrt(sum over samples of (mean over the sample's live tokens of |x_j|)^2), a sample is a row of a batch.
// Minitron (arXiv 2407.14679) as NVIDIA's Model-Optimizer codes it: mean of abs within a sample, L2 norm across
// samples; not an RMS over all tokens.
#include <ATen/ATen.h>

#include "pruning/scores.h"

namespace coppice {

at::Tensor activation_squares(const at::Tensor& hidden_NC, const at::Tensor& live_BT) {
  const int64_t num_samples = live_BT.size(0), seq_len = live_BT.size(1);
  const at::Tensor live_BT1 = live_BT.to(at::kDouble).unsqueeze(2);
  const at::Tensor sum_BC = (hidden_NC.abs().to(at::kDouble).view({num_samples, seq_len, -1}) * live_BT1).sum(1);
  return (sum_BC / live_BT1.sum(1).clamp_min(1.0)).square().sum(0);  // a sample without live tokens adds nothing
}

at::Tensor score_activation(const ScoreInput& input) {
  std::vector<at::Tensor> squares_C(input.model->config.intermediate_size.size());
  walk_hidden(input, [&](int64_t layer, const at::Tensor& hidden_NC, const at::Tensor& live_BT) {
    at::Tensor& total_C = squares_C[static_cast<size_t>(layer)];
    const at::Tensor part_C = activation_squares(hidden_NC, live_BT);
    total_C = total_C.defined() ? total_C + part_C : part_C;
  });
  return score_by_columns(input, [&](int64_t layer) { return squares_C[static_cast<size_t>(layer)].sqrt(); });
}

}  // namespace coppice
