// The loss tests itself on the stage's own first batch: a loss that is wrong trains quietly, so each property that must hold is tried once before step 0.
// A few rows are enough; the reference is the formula written with ATen in double, logits and all.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "student/targets.h"

namespace coppice {
namespace {

constexpr int64_t kRows = 32;           // rows whose loss is worked out twice
constexpr double kTolerance = 1e-4;     // float32 chunks against double
constexpr int64_t kEnoughLabels = 200;  // below this the labels' agreement is too noisy to judge their alignment

/// What the loss must be, in double: sums over live rows and the gradients of ce (1-w) + kd w + z.
struct PlainLoss {
  double ce = 0, kd = 0, z = 0;
  at::Tensor hidden_grad_ND, head_grad_VD;
};

PlainLoss plain_loss(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& true_N, const at::Tensor& teacher_N, double weight,
                     double z_loss, double scale) {
  const at::Tensor live_N = true_N.ge(0), hidden = hidden_ND.to(at::kDouble), head = head_VD.to(at::kDouble);
  const at::Tensor logits_NV = hidden.mm(head.t()), lse_N = logits_NV.logsumexp(1);
  const at::Tensor target_N = true_N.clamp_min(0), second_N = (weight > 0 ? teacher_N : true_N).clamp_min(0);
  const auto picked = [&](const at::Tensor& label_N) {
    return (lse_N - logits_NV.gather(1, label_N.unsqueeze(1)).squeeze(1)).masked_select(live_N).sum().item<double>();
  };
  const auto one_hot = [&](const at::Tensor& label_N) { return at::zeros_like(logits_NV).scatter(1, label_N.unsqueeze(1), 1.0); };
  at::Tensor logits_grad_NV =
      (logits_NV - lse_N.unsqueeze(1)).exp() * (1 + 2 * z_loss * lse_N).unsqueeze(1) - (1 - weight) * one_hot(target_N) - weight * one_hot(second_N);
  logits_grad_NV = logits_grad_NV * live_N.unsqueeze(1) * scale;
  return {.ce = picked(target_N),
          .kd = weight > 0 ? picked(second_N) : 0,
          .z = z_loss * lse_N.square().masked_select(live_N).sum().item<double>(),
          .hidden_grad_ND = logits_grad_NV.mm(head),
          .head_grad_VD = logits_grad_NV.t().mm(hidden)};
}

[[noreturn]] void broken(const std::string& property) { throw InternalError("loss self-test: " + property); }

void check_close(double got, double expected, double unit, const char* what) {
  if (!(std::abs(got - expected) <= kTolerance * std::max(std::abs(expected), unit))) broken(fmt::format("{}: got {}, expected {}", what, got, expected));
}

/// `unit` is what the gradient would be were nothing cancelled: a row that is predicted with certainty leaves only rounding.
void check_close(const at::Tensor& got, const at::Tensor& expected, double unit, const char* what) {
  const double error = (got.to(at::kDouble) - expected).abs().max().item<double>();
  if (!(error <= kTolerance * unit)) broken(fmt::format("{}: off by {} of {}", what, error, unit));
}

/// Rows of a batch whose label at column t is the token at column t + 1, and how often teacher and true label agree when one is moved by `shift` columns.
double agreement(const at::Tensor& teacher_BT, const at::Tensor& true_BT, int64_t shift) {
  const int64_t kept = true_BT.size(1) - std::abs(shift);
  const at::Tensor true_part = true_BT.narrow(1, std::max<int64_t>(shift, 0), kept), teacher_part = teacher_BT.narrow(1, std::max<int64_t>(-shift, 0), kept);
  const at::Tensor live = true_part.ge(0);
  return teacher_part.eq(true_part).masked_select(live).sum().item<double>() / std::max(1.0, live.sum().item<double>());
}

/// True labels are the tokens one column on; teacher labels fit their own column better than its neighbours.
void check_alignment(const Batch& batch, const Targets& targets) {
  const int64_t seq_len = batch.token_BT.size(1);
  const at::Tensor true_BT = targets.true_label_N.view_as(batch.token_BT);
  if (true_BT.ge(0).sum().item<int64_t>() != batch.num_live)
    broken(fmt::format("{} live labels, the batch says {}", true_BT.ge(0).sum().item<int64_t>(), batch.num_live));
  const at::Tensor label = true_BT.narrow(1, 0, seq_len - 1), next = batch.token_BT.narrow(1, 1, seq_len - 1);
  if (!label.eq(next).logical_or(label.lt(0)).all().item<bool>()) broken("a true label is not the next token of the text");
  if (!targets.teacher_label_N.defined() || seq_len < 3 || batch.num_live < kEnoughLabels) return;
  const at::Tensor teacher_BT = targets.teacher_label_N.view_as(batch.token_BT);
  const double here = agreement(teacher_BT, true_BT, 0), noise = 3.0 / std::sqrt(static_cast<double>(batch.num_live));
  for (const int64_t shift : {-1, 1})
    if (const double there = agreement(teacher_BT, true_BT, shift); there > 1.5 * here + noise)
      broken(fmt::format("teacher labels fit the text better when moved by {} ({:.3f} against {:.3f}): they are shifted", -shift, there, here));
}

}  // namespace

double self_test_loss(const Model& model, const Batch& batch, const Targets& targets) {
  const at::NoGradGuard no_grad;
  check_alignment(batch, targets);

  // The rows: the start of the batch's first sequence, read alone; at least one ignored label among them.
  const int64_t rows = std::min(kRows, batch.token_BT.size(1));
  const auto head_of = [&](const at::Tensor& value_BT) { return value_BT.defined() ? value_BT.narrow(0, 0, 1).narrow(1, 0, rows).contiguous() : value_BT; };
  const at::Tensor hidden_ND =
      decoder_hidden(model, {.token_BT = head_of(batch.token_BT), .position_BT = head_of(batch.position_BT), .document_BT = head_of(batch.document_BT)});
  const at::Tensor head_VD = output_head(model).detach();
  at::Tensor true_N = targets.true_label_N.narrow(0, 0, rows).clone();
  true_N = at::where(true_N.lt(0), batch.token_BT.reshape({-1}).narrow(0, 0, rows), true_N);
  const int64_t ignored = rows / 2;
  true_N.select(0, ignored).fill_(kIgnoredLabel);
  const bool distils = targets.teacher_label_N.defined();
  at::Tensor teacher_N = distils ? targets.teacher_label_N.narrow(0, 0, rows) : true_N;
  teacher_N = at::where(teacher_N.lt(0), batch.token_BT.reshape({-1}).narrow(0, 0, rows), teacher_N);

  const auto loss = [&](const at::Tensor& labels_N, const at::Tensor& teachers_N, double weight, const at::Tensor& head_grad_VD) {
    return mixed_cross_entropy_step(hidden_ND, head_VD, head_grad_VD, labels_N, weight > 0 ? teachers_N : at::Tensor(), weight, targets.z_loss, 0.5,
                                    /*argmax=*/true);
  };
  const double live = static_cast<double>(rows - 1);

  const PlainLoss plain = plain_loss(hidden_ND, head_VD, true_N, teacher_N, targets.teacher_weight, targets.z_loss, 0.5);
  const at::Tensor head_grad_VD = at::zeros_like(head_VD);
  const LinearLossSums mixed = loss(true_N, teacher_N, targets.teacher_weight, head_grad_VD);
  if (mixed.num_live != rows - 1) broken(fmt::format("{} live rows, expected {}", mixed.num_live, rows - 1));
  check_close(mixed.ce, plain.ce, live, "chunked cross-entropy against the plain one");
  check_close(mixed.kd, plain.kd, live, "chunked teacher term against the plain one");
  check_close(mixed.z, plain.z, targets.z_loss * live, "chunked z-loss against the plain one");
  const double head_unit = 0.5 * head_VD.abs().max().item<double>(), hidden_unit = 0.5 * hidden_ND.abs().max().item<double>();
  check_close(mixed.hidden_grad_ND, plain.hidden_grad_ND, head_unit, "gradient of the hidden states");
  check_close(head_grad_VD, plain.head_grad_VD, hidden_unit, "gradient of the head");
  if (mixed.hidden_grad_ND.select(0, ignored).abs().max().item<double>() != 0) broken("an ignored row has a gradient");

  // Weight 0 is the true labels' loss, weight 1 the teacher's.
  const LinearLossSums pure = loss(true_N, teacher_N, 0.0, at::zeros_like(head_VD)), taught = loss(true_N, teacher_N, 1.0, at::zeros_like(head_VD));
  const at::Tensor teacher_as_true_N = at::where(true_N.lt(0), true_N, teacher_N);
  const LinearLossSums swapped = loss(teacher_as_true_N, teacher_N, 0.0, at::zeros_like(head_VD));
  if (pure.kd != 0) broken("teacher_weight 0 still counts the teacher");
  check_close(taught.kd, swapped.ce, live, "teacher_weight 1 against cross-entropy on the teacher's labels");
  check_close(taught.hidden_grad_ND, swapped.hidden_grad_ND.to(at::kDouble), head_unit, "gradient at teacher_weight 1");

  // Labels moved by one are other labels: their loss must be another one, unless the text repeats one token.
  const at::Tensor live_N = true_N.masked_select(true_N.ge(0));
  const bool varied = live_N.numel() > 1 && !live_N.eq(live_N[0]).all().item<bool>() && hidden_ND.std(0).max().item<double>() > 0;
  if (varied && loss(true_N.roll(1), teacher_N, 0.0, {}).ce == pure.ce) broken("labels moved by one leave the loss unchanged");

  // A student that is its own teacher agrees everywhere (one row may sit on a tie that rounding breaks).
  const LinearLossSums own = loss(true_N, top_1(hidden_ND, head_VD), 1.0, {});
  if (own.agree < own.num_live - 1) broken(fmt::format("a model agrees with itself on {} of {} rows", own.agree, own.num_live));

  return distils ? agreement(targets.teacher_label_N.view_as(batch.token_BT), targets.true_label_N.view_as(batch.token_BT), 0) : -1;
}

}  // namespace coppice
