#include "student/plain_loss.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

namespace coppice {
namespace {

constexpr double kLeast = 1e-300;  // of a probability whose logarithm is taken
constexpr double kNever = -1e30;   // log-probability of what is not there

/// KL(a | b) per row from log-probabilities.
at::Tensor divergence(const at::Tensor& log_a_NV, const at::Tensor& log_b_NV) {
  return (log_a_NV.exp() * (log_a_NV - log_b_NV)).sum(1);
}

/// q log(q / p), 0 where q is.
at::Tensor mass_term(const at::Tensor& q_N, const at::Tensor& p_N) {
  return at::where(q_N.gt(0), q_N * (q_N.clamp_min(kLeast).log() - p_N.clamp_min(kLeast).log()), at::zeros_like(q_N));
}

/// The teacher's term of losses that read some ids, for rows that have a teacher.
at::Tensor some_ids_term(const at::Tensor& logits_NV, const Targets& targets) {
  const double tau = targets.temperature;
  const at::Tensor given_NK = targets.top.id_NK.ge(0), id_NK = targets.top.id_NK.clamp_min(0),
                   log_q_NK = at::where(given_NK, targets.top.logp_NK.to(at::kDouble).clamp_min(kNever), kNever),
                   q_NK = log_q_NK.exp(), q_tail_N = targets.top.tail_logp_N.to(at::kDouble).exp();
  const auto log_p_at = [&](double temperature) { return (logits_NV / temperature).log_softmax(1).gather(1, id_NK); };
  const auto mass_of = [&](const at::Tensor& log_p_NK) { return (log_p_NK.exp() * given_NK).sum(1); };
  if (targets.loss == "decoupled_top_k") {
    const at::Tensor inside_N = mass_of(log_p_at(1)), mass_N = q_NK.sum(1),
                     log_a_NK = (log_q_NK / tau).clamp_min(kNever).log_softmax(1),
                     log_b_NK = at::where(given_NK, log_p_at(tau), kNever).log_softmax(1);
    const at::Tensor within_N = (log_a_NK.exp() * given_NK * (log_a_NK - log_b_NK)).sum(1);
    return mass_term(mass_N, inside_N) + mass_term(q_tail_N, 1 - inside_N) + tau * tau * mass_N * within_N;
  }
  const at::Tensor log_p_NK = log_p_at(tau);
  const at::Tensor entropy_NK = reads_draws(targets.loss) ? at::zeros_like(log_q_NK) : log_q_NK;
  const at::Tensor term_N = (q_NK * (entropy_NK - log_p_NK)).sum(1);  // of draws the cross-entropy
  return tau * tau * (term_N + mass_term(q_tail_N, 1 - mass_of(log_p_NK)));
}

/// The teacher's term of every row, from student logits and targets in double.
at::Tensor teacher_term(const at::Tensor& logits_NV, const at::Tensor& ce_N, const Targets& targets) {
  const double tau = targets.temperature;
  if (targets.teacher_label_N.defined())
    return logits_NV.logsumexp(1) - logits_NV.gather(1, targets.teacher_label_N.clamp_min(0).unsqueeze(1)).squeeze(1);
  if (targets.top.id_NK.defined())
    return at::where(targets.top.id_NK.select(1, 0).ge(0), some_ids_term(logits_NV, targets), ce_N);
  const at::Tensor log_p = (logits_NV / tau).log_softmax(1);
  const at::Tensor log_q =
      (targets.teacher_hidden_NE.to(at::kDouble).mm(targets.teacher_head_VE.to(at::kDouble).t()) / tau).log_softmax(1);
  if (targets.loss == "kl") return tau * tau * divergence(log_q, log_p);
  if (targets.loss == "reverse_kl") return tau * tau * divergence(log_p, log_q);
  const at::Tensor log_m = at::logaddexp(log_q + std::log(targets.beta), log_p + std::log(1 - targets.beta));
  return tau * tau * (targets.beta * divergence(log_q, log_m) + (1 - targets.beta) * divergence(log_p, log_m));
}

}  // namespace

PlainLoss plain_loss(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const Targets& targets, double scale) {
  const at::AutoGradMode with_gradient(true);
  const at::Tensor hidden = hidden_ND.detach().to(at::kDouble).requires_grad_(),
                   head = head_VD.detach().to(at::kDouble).requires_grad_();
  const at::Tensor logits_NV = hidden.mm(head.t()), lse_N = logits_NV.logsumexp(1), live_N = targets.true_label_N.ge(0);
  const at::Tensor ce_N = lse_N - logits_NV.gather(1, targets.true_label_N.clamp_min(0).unsqueeze(1)).squeeze(1);
  const double weight = targets.teacher_weight;
  const auto sum = [&](const at::Tensor& value_N) { return value_N.masked_select(live_N).sum(); };
  const at::Tensor ce = sum(ce_N), z = targets.z_loss * sum(lse_N.square()),
                   kd = targets.has_teacher() ? sum(teacher_term(logits_NV, ce_N, targets)) : at::zeros_like(ce);
  (scale * ((1 - weight) * ce + weight * kd + z)).backward();
  return {.ce = ce.item<double>(),
          .kd = kd.item<double>(),
          .z = z.item<double>(),
          .hidden_grad_ND = hidden.grad(),
          .head_grad_VD = head.grad()};
}

}  // namespace coppice
