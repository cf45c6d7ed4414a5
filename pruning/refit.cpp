#include "pruning/refit.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "src/base/errors.h"
#include "src/model/decoder_layer.h"
#include "src/tensors/ops.h"

namespace coppice {
namespace {

/// The residual stream behind a layer's attention, and as its FFN reads it.
ResidualNorm in_front_of_ffn(const ModelConfig& config, const LayerWeights& w, const at::Tensor& stream_ND,
                             const DecoderInput& input, const at::Tensor& frequencies) {
  const at::Tensor none;
  const double eps = config.rms_norm_eps;
  const ResidualNorm norm = residual_rms_norm(stream_ND, none, w.attention_norm.value, none, eps);
  const at::Tensor heads_NQ = attention_hidden(config, w, norm.normed_ND, input, frequencies);
  return residual_rms_norm(norm.residual_ND, linear(heads_NQ, w.o.value, none), w.ffn_norm.value, none, eps);
}

at::Tensor ffn_hidden(const LayerWeights& w, const at::Tensor& normed_ND, const at::Tensor& ffn_mask_F) {
  return swiglu(linear(normed_ND, w.gate_up.value, at::Tensor()), ffn_mask_F);
}

double share(double squares, double of) { return of > 0 ? std::sqrt(std::max(0.0, squares) / of) : 0; }

}  // namespace

void RefitMoments::add(const at::Tensor& hidden_NM, const at::Tensor& output_ND, const at::Tensor& target_ND,
                       const at::Tensor& live_N) {
  const at::Tensor live_n = live_N.reshape({-1}).nonzero().squeeze(1);
  const auto live_rows = [&](const at::Tensor& value) { return value.index_select(0, live_n).to(at::kDouble); };
  const at::Tensor x_nM = live_rows(hidden_NM), y_nD = live_rows(target_ND);
  const at::Tensor miss_nD = y_nD - live_rows(output_ND);
  if (!gram_MM.defined()) {
    gram_MM = x_nM.new_zeros({x_nM.size(1), x_nM.size(1)});
    cross_DM = x_nM.new_zeros({y_nD.size(1), x_nM.size(1)});
  }
  gram_MM.addmm_(x_nM.t(), x_nM);
  cross_DM.addmm_(miss_nD.t(), x_nM);
  missed += miss_nD.square().sum().item<double>();
  target += y_nD.square().sum().item<double>();
  num_tokens += live_n.size(0);
}

bool RefitMoments::is_finite() const {
  return std::isfinite(gram_MM.diagonal().sum().item<double>() + missed + target);  // the rest is bounded by these
}

std::optional<RefittedLayer> solve_refit(const at::Tensor& down_DM, const RefitMoments& moments, double damping) {
  const double before = share(moments.missed, moments.target);
  const double lambda = damping * moments.gram_MM.diagonal().mean().item<double>();
  if (lambda == 0)
    return RefittedLayer{.down_DM = down_DM.detach().clone(), .residual = {.before = before, .after = before}};
  at::Tensor damped_MM = moments.gram_MM.clone();
  damped_MM.diagonal().add_(lambda);
  const auto [factor_MM, failed_at] = at::linalg_cholesky_ex(damped_MM);
  if (failed_at.item<int>() != 0) return std::nullopt;
  const at::Tensor change_DM = at::cholesky_solve(moments.cross_DM.t(), factor_MM).t();  // E (G + lambda I)^-1
  const at::Tensor w_DM = down_DM.detach().to(at::kDouble);
  const at::Tensor v_DM = (w_DM + change_DM).to(at::kFloat);
  // |y - V x|^2 = |y - W x|^2 - 2 <V - W, E> + <(V - W) G, V - W>, with V as float32 holds it
  const at::Tensor step_DM = v_DM.to(at::kDouble) - w_DM;
  const double gained = (step_DM * (2 * moments.cross_DM - step_DM.mm(moments.gram_MM))).sum().item<double>();
  return RefittedLayer{.down_DM = v_DM,
                       .residual = {.before = before, .after = share(moments.missed - gained, moments.target)}};
}

std::vector<LayerRefit> refit(const Model& source, const DecoderMasks& target_masks, std::span<const Batch> batches,
                              double damping, Model& cut,
                              const std::function<void(const LayerRefit& residual)>& after_layer) {
  c10::NoGradGuard no_grad;
  COPPICE_CHECK(source.config.num_hidden_layers == cut.config.num_hidden_layers &&
                    source.config.hidden_size == cut.config.hidden_size,
                "a refit repairs a cut of FFN channels alone");
  const at::Tensor none, frequencies = rope_frequencies(cut.config);
  const double eps = cut.config.rms_norm_eps;
  std::vector<at::Tensor> streams_ND;  // of every batch, in front of the layer
  for (const Batch& batch : batches)
    streams_ND.push_back(
        embedding(batch.token_BT.reshape({-1}), weight_of(cut, "embed_tokens.weight").value, none, batch.ids_below));

  std::vector<LayerRefit> residuals;
  for (int64_t layer = 0; layer < cut.config.num_hidden_layers; ++layer) {
    const LayerWeights uncut = layer_weights(source, layer), left = layer_weights(cut, layer);
    const at::Tensor target_mask_F =
        target_masks.multiplier_F.empty() ? none : target_masks.multiplier_F[static_cast<size_t>(layer)];
    RefitMoments moments;
    for (size_t b = 0; b < batches.size(); ++b) {
      const ResidualNorm norm = in_front_of_ffn(cut.config, left, streams_ND[b], batches[b].input(), frequencies);
      const at::Tensor hidden_NM = ffn_hidden(left, norm.normed_ND, none);
      const at::Tensor hidden_NF = ffn_hidden(uncut, norm.normed_ND, target_mask_F);
      moments.add(hidden_NM, linear(hidden_NM, left.down.value, none), linear(hidden_NF, uncut.down.value, none),
                  batches[b].true_label_BT.ne(kIgnoredLabel));
      streams_ND[b] = norm.residual_ND;
    }
    COPPICE_CHECK(moments.num_tokens > 0, "the calibration batches hold no live token");
    if (!moments.is_finite())
      throw UserError::recipe(
          fmt::format("refit, layer {}", layer),
          "hidden states or outputs on the calibration text are not finite: the model that is cut overflows there, "
          "and no down_proj can be solved for; train it anew, or cut it without refit");
    const std::string name = fmt::format("layers.{}.mlp.down_proj.weight", layer);
    const std::optional<RefittedLayer> refitted = solve_refit(cut.arena->read_master()[name], moments, damping);
    if (!refitted)
      throw UserError::recipe(
          fmt::format("refit, layer {}", layer),
          fmt::format("refit_damping: got {}, which is too little for its hidden states on the calibration text: some "
                      "channels say the same to the last digits, and their equations have no solution; give it more, "
                      "such as 0.01, or more calibration_tokens",
                      damping));
    cut.arena->edit_master()[name].copy_(refitted->down_DM);
    residuals.push_back(refitted->residual);
    for (at::Tensor& stream_ND : streams_ND) {
      const at::Tensor normed_ND = residual_rms_norm(stream_ND, none, left.ffn_norm.value, none, eps).normed_ND;
      stream_ND.add_(linear(ffn_hidden(left, normed_ND, none), left.down.value, none));  // as refitted
    }
    if (after_layer) after_layer(residuals.back());
  }
  return residuals;
}

}  // namespace coppice
