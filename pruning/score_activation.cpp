// activation: sqrt(sum over samples of (mean over the sample's live tokens of |x_j|)^2), a sample is a row of a batch.
// Minitron (arXiv 2407.14679) as NVIDIA's Model-Optimizer codes it: mean of abs within a sample, L2 norm across
// samples; not an RMS over all tokens. A layer: block influence, 1 - the cosine between what goes in and what comes out
// (ShortGPT, arXiv 2403.03853; Minitron's depth). A dimension of the residual stream: the same score of what the norms
// in front of attention and FFN make of it, summed over all of them (Minitron).
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "pruning/scores.h"
#include "src/base/errors.h"
#include "src/tensors/ops.h"

namespace coppice {
namespace {

constexpr double kSmallestNorm = 1e-30;  // a stream of zeros points nowhere

/// Block influence [1, L]: 1 - the mean over live tokens of the cosine between the stream before and behind a layer.
at::Tensor block_influence(const ScoreInput& input) {
  const c10::NoGradGuard no_grad;
  const Model& model = *input.model;
  at::Tensor cosine_L = at::zeros({model.config.num_hidden_layers},
                                  at::TensorOptions().dtype(at::kDouble).device(model.arena->placement().device));
  double live = 0;
  for_each_batch(input, [&](const Batch& batch) {
    const at::Tensor live_n = batch.true_label_BT.ne(kIgnoredLabel).reshape({-1}).nonzero().squeeze(1);
    const auto live_rows = [&](const at::Tensor& stream_ND) {
      return stream_ND.index_select(0, live_n).to(at::kDouble);
    };
    at::Tensor before_nD = live_rows(embedding(
        batch.token_BT.reshape({-1}), weight_of(model, "embed_tokens.weight").value, at::Tensor(), batch.ids_below));
    const auto behind = [&](int layer, const at::Tensor& stream_ND) {
      const at::Tensor after_nD = live_rows(stream_ND);
      cosine_L[layer].add_(at::cosine_similarity(before_nD, after_nD, 1, kSmallestNorm).sum());
      before_nD = after_nD;
    };
    decoder_hidden(model, batch.input(), {}, {.layer_output = behind});
    live += static_cast<double>(live_n.size(0));
  });
  COPPICE_CHECK(live > 0, "the calibration batches hold no live token");
  return score_of_row(1 - cosine_L / live);
}

/// [1, D]: the activation score of each of the 2 L norms' outputs, added up.
at::Tensor norm_activation(const ScoreInput& input) {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> squares_D;  // of every norm, in their order
  for_each_batch(input, [&](const Batch& batch) {
    const at::Tensor live_BT = batch.true_label_BT.ne(kIgnoredLabel);
    size_t norm = 0;
    const auto seen = [&](int, const at::Tensor& normed_ND) {
      if (norm == squares_D.size())
        squares_D.push_back(at::zeros({normed_ND.size(1)}, normed_ND.options().dtype(at::kDouble)));
      squares_D[norm++] += activation_squares(normed_ND, live_BT);
    };
    decoder_hidden(*input.model, batch.input(), {}, {.normed = seen});
  });
  return score_of_row(at::stack(squares_D).sqrt().sum(0));
}

}  // namespace

at::Tensor activation_squares(const at::Tensor& hidden_NC, const at::Tensor& live_BT) {
  const int64_t num_samples = live_BT.size(0), seq_len = live_BT.size(1);
  const at::Tensor live_BT1 = live_BT.to(at::kDouble).unsqueeze(2);
  const at::Tensor sum_BC = (hidden_NC.abs().to(at::kDouble).view({num_samples, seq_len, -1}) * live_BT1).sum(1);
  return (sum_BC / live_BT1.sum(1).clamp_min(1.0)).square().sum(0);  // a sample without live tokens adds nothing
}

at::Tensor score_activation(const ScoreInput& input) {
  if (input.axis == CutAxis::layers) return block_influence(input);
  if (input.axis == CutAxis::hidden) return norm_activation(input);
  std::vector<at::Tensor> squares_C(input.model->config.intermediate_size.size());
  walk_hidden(input, [&](int64_t layer, const at::Tensor& hidden_NC, const at::Tensor& live_BT) {
    at::Tensor& total_C = squares_C[static_cast<size_t>(layer)];
    const at::Tensor part_C = activation_squares(hidden_NC, live_BT);
    total_C = total_C.defined() ? total_C + part_C : part_C;
  });
  return score_by_columns(input, [&](int64_t layer) { return squares_C[static_cast<size_t>(layer)].sqrt(); });
}

}  // namespace coppice
