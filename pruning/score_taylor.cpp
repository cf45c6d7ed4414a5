// taylor: mean over samples of |sum over the sample's tokens of x_j dL/dx_j|, first order in removing the channel
// (Molchanov et al. 2017, arXiv 1611.06440, eq. 8). With a multiplier m_j on the unit, the sum is dL/dm_j at m = 1,
// so the backward pass of the mask gives it. A sample is a row of a batch, L its mean next-token loss over live tokens.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "pruning/scores.h"
#include "src/base/errors.h"
#include "src/tensors/ops.h"

namespace coppice {

at::Tensor score_taylor(const ScoreInput& input) {
  const Model& model = *input.model;
  COPPICE_CHECK(!model.arena->has_gradient(), "taylor would add to the gradient of the weights");
  c10::AutoGradMode with_gradients(true);
  std::vector<at::Tensor> one_U, sum_U;  // a row each
  for (const int64_t units : units_of(model.config, input.axis)) {
    const auto there = at::TensorOptions().device(model.arena->placement().device);
    one_U.push_back(at::ones({units}, there).set_requires_grad(true));
    sum_U.push_back(at::zeros({units}, there.dtype(at::kDouble)));
  }
  const DecoderMasks ones = masks_on(input.axis, one_U, model.config);
  int64_t num_samples = 0;
  for_each_batch(input, [&](const Batch& batch) {
    for (int64_t row = 0; row < batch.token_BT.size(0); ++row) {
      const at::Tensor label_N = batch.true_label_BT.select(0, row).contiguous();
      if (!label_N.ne(kIgnoredLabel).any().item<bool>()) continue;
      const at::Tensor hidden_ND = decoder_hidden(model, batch.input().part(row, 1, 0, batch.token_BT.size(1)), ones);
      linear_mixed_cross_entropy(hidden_ND, output_head(model), label_N, {}, 0.0, 0.0).backward();
      for (size_t r = 0; r < sum_U.size(); ++r) {
        sum_U[r] += one_U[r].grad().to(at::kDouble).abs();
        one_U[r].mutable_grad() = at::Tensor();
      }
      ++num_samples;
    }
  });
  COPPICE_CHECK(num_samples > 0, "the calibration batches hold no live token");
  return score_by_row(input,
                      [&](int64_t r) { return sum_U[static_cast<size_t>(r)] / static_cast<double>(num_samples); });
}

}  // namespace coppice
