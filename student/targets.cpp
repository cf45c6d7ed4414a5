// Targets and the training step's arithmetic: forward, loss with its gradient, backward into the arena. Nothing here divides by tokens: `scale` comes
// from optim's gradient_scale, so that micro-batches of any raggedness add up to one step.
#include "student/targets.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

DecoderInput input_of(const Batch& batch) { return {.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = batch.document_BT}; }

LossSums sums_of(const LinearLossSums& sums) {
  return {.ce = sums.ce, .kd = sums.kd, .z = sums.z, .num_live = sums.num_live, .correct = sums.correct, .agree = sums.agree};
}

void check_targets(const Batch& batch, const Targets& targets) {
  check_shape(targets.true_label_N, {batch.token_BT.numel()}, "true_label_N");
  if (targets.teacher_label_N.defined()) check_shape(targets.teacher_label_N, {batch.token_BT.numel()}, "teacher_label_N");
  COPPICE_CHECK(targets.teacher_label_N.defined() || targets.teacher_weight == 0, fmt::format("teacher_weight {} without labels", targets.teacher_weight));
}

}  // namespace

Targets make_targets(const Batch& batch, const at::Tensor& teacher_label_BT, const KdOptions& options) {
  COPPICE_CHECK(options.teacher_weight >= 0 && options.teacher_weight <= 1, fmt::format("teacher_weight {}", options.teacher_weight));
  Targets targets{.true_label_N = batch.true_label_BT.reshape({-1}), .teacher_label_N = {}, .teacher_weight = 0, .z_loss = options.z_loss};
  if (teacher_label_BT.defined()) {
    check_shape(teacher_label_BT, {batch.token_BT.size(0), batch.token_BT.size(1)}, "teacher_label_BT");
    const at::Tensor label_N = teacher_label_BT.reshape({-1});
    targets.teacher_label_N = at::where(label_N.lt(0), targets.true_label_N, label_N);
    targets.teacher_weight = options.teacher_weight;
  }
  return targets;
}

void LossSums::add(const LossSums& other) {
  ce += other.ce;
  kd += other.kd;
  z += other.z;
  num_live += other.num_live;
  correct += other.correct;
  agree += other.agree;
}

LossTerms LossSums::terms(double teacher_weight) const {
  if (num_live == 0) return {};
  const double live = static_cast<double>(num_live);
  return {.loss = ((1 - teacher_weight) * ce + teacher_weight * kd + z) / live, .ce = ce / live, .kd = kd / live, .num_live = num_live};
}

LossSums train_micro_batch(const Model& model, const Batch& batch, const Targets& targets, const FfnMasks& masks, double scale) {
  check_targets(batch, targets);
  const at::Tensor hidden_ND = decoder_hidden(model, input_of(batch), masks);
  const LinearLossSums sums =
      mixed_cross_entropy_step(hidden_ND.detach(), output_head(model).detach(), output_head_gradient(model), targets.true_label_N, targets.teacher_label_N,
                               targets.teacher_weight, targets.z_loss, scale, /*argmax=*/false);
  if (sums.num_live > 0) hidden_ND.backward(sums.hidden_grad_ND);
  return sums_of(sums);
}

LossSums evaluate_batch(const Model& model, const Batch& batch, const Targets& targets, const FfnMasks& masks) {
  const at::NoGradGuard no_grad;
  check_targets(batch, targets);
  return sums_of(mixed_cross_entropy_step(decoder_hidden(model, input_of(batch), masks), output_head(model), {}, targets.true_label_N, targets.teacher_label_N,
                                          targets.teacher_weight, targets.z_loss, 1.0, /*argmax=*/true));
}

}  // namespace coppice
