// Targets and the training step's arithmetic: forward, loss with its gradient, backward into the arena. Nothing here
// divides by tokens: `scale` comes from optim's gradient_scale, so that micro-batches of any raggedness add up to one
// step.
#include "student/targets.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "src/base/errors.h"
#include "src/tensors/decoupled_top_k.h"
#include "src/tensors/draws.h"
#include "src/tensors/ops.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr int64_t kSumHidden = kNumLossSums, kFirstTeacher = kSumHidden + 1;  // places in StepSums

LossSums sums_of(const LinearLossSums& sums, const Targets& targets) {
  return {.ce = sums.ce,
          .kd = sums.kd,
          .z = sums.z,
          .teacher_weight = targets.teacher_weight,
          .num_live = sums.num_live,
          .correct = sums.correct,
          .agree = sums.agree};
}

void check_targets(const Batch& batch, const Targets& targets) {
  check_shape(targets.true_label_N, {batch.token_BT.numel()}, "true_label_N");
  if (targets.teacher_label_N.defined())
    check_shape(targets.teacher_label_N, {batch.token_BT.numel()}, "teacher_label_N");
  COPPICE_CHECK(targets.has_teacher() || targets.teacher_weight == 0,
                fmt::format("teacher_weight {} without a teacher", targets.teacher_weight));
}

}  // namespace

std::pair<double, double> distil_span(const KdOptions& options, int64_t steps) {
  const auto share = [&](double value) { return value > 1 ? value / static_cast<double>(steps) : value; };
  return {share(options.distil_from), share(options.distil_to)};
}

double label_temperature(const KdOptions& options) {
  return options.loss == "decoupled_top_k" ? 1 : options.temperature;
}

bool is_scheduled(const KdOptions& options) {
  return options.teacher_weight_end >= 0 || options.distil_from > 0 || options.distil_to != 1;
}

bool distils_at(const KdOptions& options, int64_t step, int64_t steps) {
  const double share = static_cast<double>(step) / static_cast<double>(steps);
  const auto [from, to] = distil_span(options, steps);
  return share >= from && share < to;
}

double teacher_weight_at(const KdOptions& options, int64_t step, int64_t steps) {
  const double share = static_cast<double>(step) / static_cast<double>(steps);
  if (!distils_at(options, step, steps)) return 0;
  if (options.teacher_weight_end < 0) return options.teacher_weight;
  const auto [from, to] = distil_span(options, steps);
  const double progress = (share - from) / (to - from);
  return options.teacher_weight + progress * (options.teacher_weight_end - options.teacher_weight);
}

Targets make_targets(const Batch& batch, const at::Tensor& teacher_label_BT, const KdOptions& options) {
  return distillation_targets(
      batch, {.label_BT = teacher_label_BT, .top = {}, .hidden_NE = {}, .head_VE = {}, .layer_ND = {}}, options);
}

Targets distillation_targets(const Batch& batch, const TeacherSignal& signal, const KdOptions& options) {
  COPPICE_CHECK(options.teacher_weight >= 0 && options.teacher_weight <= 1,
                fmt::format("teacher_weight {}", options.teacher_weight));
  Targets targets{.true_label_N = batch.true_label_BT.reshape({-1}),
                  .z_loss = options.z_loss,
                  .float_logits = options.float_logits,
                  .loss = options.loss,
                  .temperature = options.temperature,
                  .beta = options.beta,
                  .labels_below = batch.ids_below};
  if (options.loss == "labels") {
    if (signal.label_BT.defined()) {
      check_shape(signal.label_BT, {batch.token_BT.size(0), batch.token_BT.size(1)}, "teacher_label_BT");
      const at::Tensor label_N = signal.label_BT.reshape({-1});
      targets.teacher_label_N = at::where(label_N.lt(0), targets.true_label_N, label_N);
    }
  } else if (reads_some_ids(options.loss)) {
    targets.top = signal.top;
  } else {
    targets.teacher_hidden_NE = signal.hidden_NE;
    targets.teacher_head_VE = signal.head_VE;
  }
  if (targets.has_teacher()) targets.teacher_weight = options.teacher_weight;
  if (targets.teacher_label_N.defined() || targets.top.id_NK.defined())
    targets.labels_below =
        batch.ids_below > 0 && signal.labels_below > 0 ? std::max(batch.ids_below, signal.labels_below) : 0;
  if (!signal.layer_ND.empty()) {
    targets.hidden_loss = options.hidden_loss;
    targets.hidden_weight = options.hidden_weight;
    for (const int64_t layer : options.hidden_layers) targets.hidden_layers.push_back(layer - 1);
    targets.teacher_layer_ND = signal.layer_ND;
    COPPICE_CHECK(
        targets.hidden_layers.size() == targets.teacher_layer_ND.size(),
        fmt::format("{} layers of the teacher for {}", targets.teacher_layer_ND.size(), targets.hidden_layers.size()));
  }
  return targets;
}

LinearLoss head_loss(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& head_grad_VD,
                     const Targets& targets, double scale, bool argmax) {
  const HeadRows rows{.hidden_ND = hidden_ND,
                      .head_VD = head_VD,
                      .head_grad_VD = head_grad_VD,
                      .true_label_N = targets.true_label_N,
                      .scale = scale,
                      .argmax = argmax,
                      .chunk_rows = targets.chunk_rows,
                      .labels_below = targets.labels_below,
                      .float_logits = targets.float_logits};
  if (targets.top.id_NK.defined())
    return (reads_draws(targets.loss)           ? drawn_cross_entropy_step
            : targets.loss == "decoupled_top_k" ? decoupled_top_k_step
                                                : top_k_cross_entropy_step)(rows, targets.top, targets.teacher_weight,
                                                                            targets.temperature, targets.z_loss);
  if (targets.teacher_hidden_NE.defined())
    return distillation_step(rows, targets.teacher_hidden_NE, targets.teacher_head_VE,
                             {.loss = targets.loss,
                              .teacher_weight = targets.teacher_weight,
                              .temperature = targets.temperature,
                              .beta = targets.beta,
                              .z_loss = targets.z_loss});
  return mixed_cross_entropy_step(rows, targets.teacher_label_N, targets.teacher_weight, targets.z_loss);
}

HeadStep head_step(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& head_grad_VD,
                   std::span<const Targets> targets, double scale, const HeadLoss& loss) {
  const auto teachers = std::ssize(targets);
  HeadStep step{.sum_S =
                    at::zeros({kFirstTeacher + (teachers > 1 ? teachers : 0)}, hidden_ND.options().dtype(at::kDouble))};
  for (int64_t i = 0; i < teachers; ++i) {
    const Targets& target = targets[static_cast<size_t>(i)];
    const LinearLoss one = loss(hidden_ND, head_VD, head_grad_VD, target, scale * target.share, /*argmax=*/false);
    step.sum_S.narrow(0, 0, kSumLive).add_(one.sum_S.narrow(0, 0, kSumLive) * target.share);  // ce, kd, z
    step.sum_S[kSumLive].copy_(one.sum_S[kSumLive]);
    if (teachers > 1) step.sum_S[kFirstTeacher + i].copy_(one.sum_S[kSumKd]);
    step.hidden_grad_ND =
        step.hidden_grad_ND.defined() ? step.hidden_grad_ND.add_(one.hidden_grad_ND) : one.hidden_grad_ND;
  }
  return step;
}

namespace {

at::Tensor widened(const at::Tensor& hidden_ND) {
  return hidden_ND.scalar_type() == at::kBFloat16 ? hidden_ND.to(at::kFloat) : hidden_ND;
}

}  // namespace

at::Tensor hidden_state_loss(const std::string& kind, const std::vector<at::Tensor>& student_ND,
                             const std::vector<at::Tensor>& teacher_ND, const at::Tensor& live_N) {
  COPPICE_CHECK(!student_ND.empty() && student_ND.size() == teacher_ND.size(),
                fmt::format("{} layers against {}", student_ND.size(), teacher_ND.size()));
  at::Tensor sum;
  for (size_t i = 0; i < student_ND.size(); ++i) {
    check_shape(teacher_ND[i], {student_ND[i].size(0), student_ND[i].size(1)}, "teacher_layer_ND");
    const at::Tensor own_ND = widened(student_ND[i]), other_ND = widened(teacher_ND[i]);
    const at::Tensor row_N =
        kind == "mse" ? (own_ND - other_ND).square().mean(1) : 1 - at::cosine_similarity(own_ND, other_ND, 1);
    // How many rows a device selects nobody knows without a wait.
    const at::Tensor of_layer = row_N.is_cpu() ? row_N.masked_select(live_N).sum() : row_N.where(live_N, 0).sum();
    sum = sum.defined() ? sum + of_layer : of_layer;
  }
  return sum / static_cast<double>(student_ND.size());
}

void LossSums::add(const LossSums& other) {
  const bool begins = num_live == 0;
  COPPICE_CHECK(begins || other.num_live == 0 || teacher_weight == other.teacher_weight,
                fmt::format("sums with teacher weights {} and {}", teacher_weight, other.teacher_weight));
  if (begins) teacher_weight = other.teacher_weight;
  ce += other.ce;
  kd += other.kd;
  z += other.z;
  hidden += other.hidden;
  num_live += other.num_live;
  correct += other.correct;
  agree += other.agree;
  kd_of.resize(std::max(kd_of.size(), other.kd_of.size()));
  for (size_t i = 0; i < other.kd_of.size(); ++i) kd_of[i] += other.kd_of[i];
}

LossTerms LossSums::terms() const {
  if (num_live == 0) return {};
  const double live = static_cast<double>(num_live);
  return {.loss = ((1 - teacher_weight) * ce + teacher_weight * kd + z + hidden) / live,
          .ce = ce / live,
          .kd = kd / live,
          .num_live = num_live};
}

void StepSums::add(const StepSums& other) {
  if (!other.sum_S_.defined()) return;
  if (!sum_S_.defined()) {
    *this = {other.sum_S_.clone(), other.teacher_weight_};
    return;
  }
  COPPICE_CHECK(teacher_weight_ == other.teacher_weight_,
                fmt::format("sums with teacher weights {} and {}", teacher_weight_, other.teacher_weight_));
  sum_S_.add_(other.sum_S_);
}

LossSums StepSums::read() const {
  if (!sum_S_.defined()) return {};
  const at::Tensor host_S = sum_S_.cpu();
  const double* sum = host_S.const_data_ptr<double>();
  return {.ce = sum[kSumCe],
          .kd = sum[kSumKd],
          .z = sum[kSumZ],
          .hidden = sum[kSumHidden],
          .teacher_weight = teacher_weight_,
          .num_live = static_cast<int64_t>(sum[kSumLive]),
          .correct = static_cast<int64_t>(sum[kSumCorrect]),
          .agree = static_cast<int64_t>(sum[kSumAgree]),
          .kd_of = {sum + kFirstTeacher, sum + host_S.numel()}};
}

StepSums train_micro_batch(const Model& model, const Batch& batch, const Targets& targets, const DecoderMasks& masks,
                           double scale) {
  return train_micro_batch(model, batch, std::span(&targets, 1), masks, scale);
}

StepSums train_micro_batch(const Model& model, const Batch& batch, std::span<const Targets> targets,
                           const DecoderMasks& masks, double scale, const HeadLoss& loss) {
  std::vector<at::Tensor> output_ND;  // of every layer, when a hidden-state loss asks
  DecoderTaps taps;
  if (std::ranges::any_of(targets, [](const Targets& target) { return !target.teacher_layer_ND.empty(); }))
    taps.layer_output = [&](int, const at::Tensor& layer_ND) { output_ND.push_back(layer_ND); };
  const at::Tensor hidden_ND = decoder_hidden(model, batch.input(), masks, taps);

  for (const Targets& target : targets) check_targets(batch, target);
  const HeadStep step =
      head_step(hidden_ND.detach(), output_head(model).detach(), output_head_gradient(model), targets, scale, loss);
  const StepSums sums(step.sum_S, targets.front().teacher_weight);
  at::Tensor hidden_term;
  for (const Targets& target : targets) {
    if (target.teacher_layer_ND.empty()) continue;
    std::vector<at::Tensor> compared_ND;
    for (const int64_t layer : target.hidden_layers) compared_ND.push_back(output_ND.at(static_cast<size_t>(layer)));
    const at::Tensor term =
        target.share * target.hidden_weight *
        hidden_state_loss(target.hidden_loss, compared_ND, target.teacher_layer_ND, target.true_label_N.ge(0));
    hidden_term = hidden_term.defined() ? hidden_term + term : term;
  }
  if (!hidden_term.defined()) {
    hidden_ND.backward(step.hidden_grad_ND);
    return sums;
  }
  step.sum_S[kSumHidden].copy_(hidden_term.detach());
  ((hidden_ND * step.hidden_grad_ND).sum() + scale * hidden_term).backward();  // one walk back from both
  return sums;
}

StepSums accumulate_gradient(const Model& model, std::span<const Batch> batches, const TargetsOf& targets_of,
                             const DecoderMasks& masks, double scale, const HeadLoss& loss) {
  StepSums sums;
  for (const Batch& batch : batches) sums.add(train_micro_batch(model, batch, targets_of(batch), masks, scale, loss));
  return sums;
}

LossSums evaluate_batch(const Model& model, const Batch& batch, const Targets& targets, const DecoderMasks& masks) {
  const at::NoGradGuard no_grad;
  check_targets(batch, targets);
  return sums_of(
      head_loss(decoder_hidden(model, batch.input(), masks), output_head(model), {}, targets, 1.0, /*argmax=*/true)
          .read(),
      targets);
}

}  // namespace coppice
