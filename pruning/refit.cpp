#include "pruning/refit.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "src/base/errors.h"
#include "src/model/decoder_halves.h"

namespace coppice {
namespace {

/// What one half of the cut model stands for: the source's halves [first, last), from the stream in front of it.
struct SourceHalves {
  int64_t first = 0, last = 0;
  bool solved = false;  // something of them is lost, or may be
};

/// One for each half of the cut model.
std::vector<SourceHalves> stood_for(const ModelConfig& source, const PrunePlan& plan) {
  std::vector<SourceHalves> parts;
  if (plan.axis != CutAxis::layers) {
    for (int64_t half = 0; half < 2 * source.num_hidden_layers; ++half) {
      const bool of_ffn = half % 2 != 0;
      parts.push_back({half, half + 1, plan.axis == CutAxis::hidden || (plan.axis == CutAxis::ffn) == of_ffn});
    }
    return parts;
  }
  const std::vector<int64_t>& kept = plan.kept.front();
  for (size_t layer = 0; layer < kept.size(); ++layer) {
    const int64_t attention = 2 * kept[layer], ffn = attention + 1;
    const int64_t next = layer + 1 < kept.size() ? 2 * kept[layer + 1] : 2 * source.num_hidden_layers;
    for (const auto& [first, last] : {std::pair{layer == 0 ? 0 : attention, ffn}, {ffn, next}})
      parts.push_back({first, last, last - first > 1});
  }
  return parts;
}

/// One batch on its way through both models.
struct Streams {
  at::Tensor cut_ND;
  at::Tensor source_ND;  // only where the cut's is narrower
};

/// What the source gives in the place of a half of the cut model.
at::Tensor target_of(const SourceHalves& part, const DecoderHalves& source, const DecoderInput& input,
                     at::Tensor stream_ND) {
  at::Tensor target_ND;
  for (int64_t half = part.first; half < part.last; ++half) {
    const at::Tensor added_ND = source.added(half, source.hidden(half, stream_ND, input));
    target_ND = target_ND.defined() ? target_ND + added_ND : added_ND;
    if (half + 1 < part.last) stream_ND = stream_ND + added_ND;
  }
  return target_ND;
}

/// The same where the stream was cut, whose kept dimensions are kept_D: the source's own stream goes on behind the
/// half.
at::Tensor target_beside(int64_t half, const DecoderHalves& source, const DecoderInput& input, const at::Tensor& kept_D,
                         Streams& streams) {
  streams.source_ND.add_(source.added(half, source.hidden(half, streams.source_ND, input)));
  return streams.source_ND.index_select(1, kept_D) - streams.cut_ND;
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

std::optional<RefittedWeight> solve_refit(const at::Tensor& weight_DM, const RefitMoments& moments, double damping) {
  const double before = share(moments.missed, moments.target);
  const double lambda = damping * moments.gram_MM.diagonal().mean().item<double>();
  if (lambda == 0) return RefittedWeight{.weight_DM = weight_DM.detach().clone(), .before = before, .after = before};
  at::Tensor damped_MM = moments.gram_MM.clone();
  damped_MM.diagonal().add_(lambda);
  const auto [factor_MM, failed_at] = at::linalg_cholesky_ex(damped_MM);
  if (failed_at.item<int>() != 0) return std::nullopt;
  const at::Tensor change_DM = at::cholesky_solve(moments.cross_DM.t(), factor_MM).t();  // E (G + lambda I)^-1
  const at::Tensor w_DM = weight_DM.detach().to(at::kDouble);
  const at::Tensor v_DM = (w_DM + change_DM).to(at::kFloat);
  // |y - V x|^2 = |y - W x|^2 - 2 <V - W, E> + <(V - W) G, V - W>, with V as float32 holds it
  const at::Tensor step_DM = v_DM.to(at::kDouble) - w_DM;
  const double gained = (step_DM * (2 * moments.cross_DM - step_DM.mm(moments.gram_MM))).sum().item<double>();
  return RefittedWeight{.weight_DM = v_DM, .before = before, .after = share(moments.missed - gained, moments.target)};
}

namespace {

RefittedWeight solved(int64_t half, const Model& cut, const RefitMoments& moments, double damping) {
  COPPICE_CHECK(moments.num_tokens > 0, "the calibration batches hold no live token");
  const std::string where = fmt::format("refit, layer {}, {}", half / 2, writer_of_half(half));
  if (!moments.is_finite())
    throw UserError::recipe(
        where,
        "hidden states or outputs on the calibration text are not finite: the model that is cut overflows there, and "
        "nothing can be solved for; train it anew, or cut it without refit");
  std::optional<RefittedWeight> refitted =
      solve_refit(cut.arena->read_master()[parameter_of_half(half)], moments, damping);
  if (!refitted)
    throw UserError::recipe(
        where, fmt::format("refit_damping: got {}, which is too little for its hidden states on the calibration text: "
                           "some of them say the same to the last digits, and their equations have no solution; give "
                           "it more, such as 0.01, or more calibration_tokens",
                           damping));
  return *std::move(refitted);
}

}  // namespace

std::vector<int64_t> refitted_halves(const ModelConfig& source, const PrunePlan& plan) {
  const std::vector<SourceHalves> parts = stood_for(source, plan);
  std::vector<int64_t> halves;
  for (size_t half = 0; half < parts.size(); ++half)
    if (parts[half].solved) halves.push_back(static_cast<int64_t>(half));
  return halves;
}

std::vector<HalfRefit> refit(const Model& source, const DecoderMasks& target_masks, const PrunePlan& plan,
                             std::span<const Batch> batches, double damping, Model& cut,
                             const std::function<void(int64_t half, const HalfRefit* solved)>& after_half) {
  c10::NoGradGuard no_grad;
  const std::vector<SourceHalves> parts = stood_for(source.config, plan);
  const DecoderHalves uncut(source, target_masks), left(cut);
  const bool narrower = plan.axis == CutAxis::hidden;
  COPPICE_CHECK(std::ssize(parts) == left.count() && (narrower || source.config.hidden_size == cut.config.hidden_size),
                "a refit of a cut that is not of this plan");
  const at::Tensor kept_D =
      narrower ? at::tensor(plan.kept.front(), at::kLong).to(source.arena->placement().device) : at::Tensor();
  std::vector<Streams> streams;
  for (const Batch& batch : batches)
    streams.push_back({left.embedded(batch.input()), narrower ? uncut.embedded(batch.input()) : at::Tensor()});

  std::vector<HalfRefit> residuals;
  for (int64_t half = 0; half < left.count(); ++half) {
    const SourceHalves& part = parts[static_cast<size_t>(half)];
    if (part.solved) {
      RefitMoments moments;
      for (size_t b = 0; b < batches.size(); ++b) {
        const DecoderInput input = batches[b].input();
        const at::Tensor hidden_NM = left.hidden(half, streams[b].cut_ND, input);
        moments.add(hidden_NM, left.added(half, hidden_NM),
                    narrower ? target_beside(half, uncut, input, kept_D, streams[b])
                             : target_of(part, uncut, input, streams[b].cut_ND),
                    batches[b].true_label_BT.ne(kIgnoredLabel));
      }
      const RefittedWeight refitted = solved(half, cut, moments, damping);
      cut.arena->edit_master()[parameter_of_half(half)].copy_(refitted.weight_DM);
      residuals.push_back({half, refitted.before, refitted.after});
    }
    for (size_t b = 0; b < batches.size(); ++b) {
      at::Tensor& stream_ND = streams[b].cut_ND;
      stream_ND.add_(left.added(half, left.hidden(half, stream_ND, batches[b].input())));  // as refitted
    }
    if (after_half) after_half(half, part.solved ? &residuals.back() : nullptr);
  }
  return residuals;
}

}  // namespace coppice
