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
  COPPICE_CHECK(targets.has_teacher() || targets.teacher_weight == 0, fmt::format("teacher_weight {} without a teacher", targets.teacher_weight));
}

}  // namespace

double teacher_weight_at(const KdOptions& options, int64_t step, int64_t steps) {
  const double share = static_cast<double>(step) / static_cast<double>(steps);
  if (share < options.distil_from || share >= options.distil_to) return 0;
  if (options.teacher_weight_end < 0) return options.teacher_weight;
  const double progress = (share - options.distil_from) / (options.distil_to - options.distil_from);
  return options.teacher_weight + progress * (options.teacher_weight_end - options.teacher_weight);
}

Targets make_targets(const Batch& batch, const at::Tensor& teacher_label_BT, const KdOptions& options) {
  return distillation_targets(batch, {.label_BT = teacher_label_BT, .top = {}, .hidden_NE = {}, .head_VE = {}}, options);
}

Targets distillation_targets(const Batch& batch, const TeacherSignal& signal, const KdOptions& options) {
  COPPICE_CHECK(options.teacher_weight >= 0 && options.teacher_weight <= 1, fmt::format("teacher_weight {}", options.teacher_weight));
  Targets targets{.true_label_N = batch.true_label_BT.reshape({-1}),
                  .z_loss = options.z_loss,
                  .loss = options.loss,
                  .temperature = options.temperature,
                  .beta = options.beta};
  if (options.loss == "labels") {
    if (signal.label_BT.defined()) {
      check_shape(signal.label_BT, {batch.token_BT.size(0), batch.token_BT.size(1)}, "teacher_label_BT");
      const at::Tensor label_N = signal.label_BT.reshape({-1});
      targets.teacher_label_N = at::where(label_N.lt(0), targets.true_label_N, label_N);
    }
  } else if (options.loss == "top_k") {
    targets.top = signal.top;
  } else {
    targets.teacher_hidden_NE = signal.hidden_NE;
    targets.teacher_head_VE = signal.head_VE;
  }
  if (targets.has_teacher()) targets.teacher_weight = options.teacher_weight;
  return targets;
}

LinearLossSums head_loss(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& head_grad_VD, const Targets& targets, double scale,
                         bool argmax) {
  if (targets.top.id_NK.defined())
    return top_k_cross_entropy_step(hidden_ND, head_VD, head_grad_VD, targets.true_label_N, targets.top, targets.teacher_weight, targets.temperature,
                                    targets.z_loss, scale, argmax);
  if (targets.teacher_hidden_NE.defined())
    return distillation_step(
        hidden_ND, head_VD, head_grad_VD, targets.teacher_hidden_NE, targets.teacher_head_VE, targets.true_label_N,
        {.loss = targets.loss, .teacher_weight = targets.teacher_weight, .temperature = targets.temperature, .beta = targets.beta, .z_loss = targets.z_loss},
        scale, argmax);
  return mixed_cross_entropy_step(hidden_ND, head_VD, head_grad_VD, targets.true_label_N, targets.teacher_label_N, targets.teacher_weight, targets.z_loss,
                                  scale, argmax);
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
  const LinearLossSums sums = head_loss(hidden_ND.detach(), output_head(model).detach(), output_head_gradient(model), targets, scale, /*argmax=*/false);
  if (sums.num_live > 0) hidden_ND.backward(sums.hidden_grad_ND);
  return sums_of(sums);
}

LossSums evaluate_batch(const Model& model, const Batch& batch, const Targets& targets, const FfnMasks& masks) {
  const at::NoGradGuard no_grad;
  check_targets(batch, targets);
  return sums_of(head_loss(decoder_hidden(model, input_of(batch), masks), output_head(model), {}, targets, 1.0, /*argmax=*/true));
}

}  // namespace coppice
