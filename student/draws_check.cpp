// One draw's part of the gradient is scale tau w (mean - head[id]): `mean` of the head under the student's p, w what
// the draw weighs - 1, q / r where it is drawn from a proposal r, and of loss hybrid the probability of all that is
// drawn from, what its ids leave over. Its variance and range are known. By Bernstein's inequality the mean of R such
// is off its expectation by more than
//   sqrt(2 L variance / R) + 2 L range / (3 R)
// with a probability of 2 e^-L at most, however they are distributed: a rare id is no false alarm. Draws that are each
// from their own part of the distribution vary less.
#include "student/draws_check.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/tensors/draws.h"

namespace coppice {
namespace {

constexpr int64_t kDraws = 4096;
constexpr int64_t kHeadIds = 4;  // of loss hybrid
constexpr double kFalseAlarm = 1e-12;
constexpr double kRounding = 1e-4, kNarrowRounding = 5e-2;  // of the gradient were nothing cancelled, by element type
constexpr double kProposal = 1.5;                           // another temperature to draw at

int64_t head_ids(const at::Tensor& head_VD) { return std::min(kHeadIds, head_VD.size(0)); }

/// How far off its expectation the mean of draws may be, before scale and tau; `range_N1`: of one draw's part, in
/// ranges of the head; `rounding`: of the gradient, in largest elements of the head.
at::Tensor allowed_error(const at::Tensor& q_NV, const at::Tensor& weight_NV, const at::Tensor& range_N1,
                         const at::Tensor& p_NV, const at::Tensor& head_VD, double rounding) {
  const at::Tensor square_NV = q_NV * weight_NV;  // r w^2
  const at::Tensor mean_ND = p_NV.mm(head_VD), expected_ND = q_NV.sum(1, /*keepdim=*/true) * mean_ND - q_NV.mm(head_VD),
                   squares_ND = square_NV.sum(1, /*keepdim=*/true) * mean_ND.square() -
                                2 * mean_ND * square_NV.mm(head_VD) + square_NV.mm(head_VD.square()),
                   variance_ND = (squares_ND - expected_ND.square()).clamp_min(0),
                   range_ND = range_N1 * (std::get<0>(head_VD.max(0)) - std::get<0>(head_VD.min(0)));
  const double l = std::log(2 * static_cast<double>(mean_ND.numel()) / kFalseAlarm), draws = kDraws;
  return (2 * l / draws * variance_ND).sqrt() + 2 * l / (3 * draws) * range_ND + rounding * head_VD.abs().max();
}

/// check_draws() with one proposal.
void check_draws_from(const HeadLoss& loss, const at::Tensor& hidden_ND, const at::Tensor& head_VD, const Targets& like,
                      double scale, double proposal_temperature) {
  const at::Tensor teacher_ND = hidden_ND.roll(1, 0) * 1.5;
  Targets dense{.true_label_N = like.true_label_N, .teacher_weight = 1, .loss = "kl", .temperature = like.temperature};
  Targets drawn = dense;
  dense.teacher_hidden_NE = teacher_ND;
  dense.teacher_head_VE = head_VD;
  drawn.loss = like.loss;
  drawn.top = many_draws(like.loss, teacher_ND, head_VD, like.temperature, proposal_temperature);
  const auto gradient = [&](const Targets& targets) {
    const at::Tensor head_grad_VD = at::zeros(head_VD.sizes(), head_VD.options().dtype(at::kFloat));
    return loss(hidden_ND, head_VD, head_grad_VD, targets, scale, /*argmax=*/false).hidden_grad_ND.to(at::kDouble);
  };
  const at::Tensor off_ND = (gradient(drawn) - gradient(dense)).abs(), head = head_VD.to(at::kDouble);
  const auto log_softmax = [&](const at::Tensor& rows_ND, double temperature) {
    return (rows_ND.to(at::kDouble).mm(head.t()) / temperature).log_softmax(1);
  };
  const at::Tensor log_q_NV = log_softmax(teacher_ND, like.temperature);
  at::Tensor q_NV = log_q_NV.exp(), weight_NV;
  if (like.loss == "hybrid") {
    q_NV.scatter_(1, drawn.top.id_NK.narrow(1, 0, head_ids(head_VD)), 0.0);  // none of these
    weight_NV = q_NV.sum(1, /*keepdim=*/true).expand_as(q_NV);
  } else {
    weight_NV = (log_q_NV - log_softmax(teacher_ND, like.temperature * proposal_temperature)).exp();
  }
  at::Tensor range_N1 = weight_NV.amax(1, /*keepdim=*/true);
  if (proposal_temperature != 1) range_N1 = range_N1 + 1;  // the expectation has a range of its own
  const at::Tensor allowed_ND =
      scale * like.temperature *
      allowed_error(q_NV, weight_NV, range_N1, log_softmax(hidden_ND, like.temperature).exp(), head,
                    hidden_ND.scalar_type() == at::kBFloat16 ? kNarrowRounding : kRounding);
  if (!off_ND.le(allowed_ND).all().item<bool>())
    throw InternalError(fmt::format(
        "loss self-test: the gradient of {} draws is {:.2g} times as far off that of the divergence as "
        "their error allows{}",
        kDraws, (off_ND / allowed_ND).max().item<double>(),
        proposal_temperature == 1 ? "" : fmt::format(", at proposal_temperature {}", proposal_temperature)));
}

}  // namespace

TopK many_draws(const std::string& loss, const at::Tensor& hidden_ND, const at::Tensor& head_VD, double temperature,
                double proposal_temperature) {
  const at::Tensor number_NR = at::empty({hidden_ND.size(0), kDraws}, at::kDouble);
  double* const number = number_NR.mutable_data_ptr<double>();
  for (int64_t i = 0; i < number_NR.numel(); ++i)
    number[i] = random_uniform(0, Purpose::label_draws, 0, static_cast<uint64_t>(i));
  const at::Tensor there_NR = number_NR.to(hidden_ND.device());
  if (loss == "sample")
    return shares_of_draws(draw_weighted_ids(hidden_ND, head_VD, temperature, proposal_temperature, there_NR));
  return shares_of_head_and_draws(top_k_and_draws(hidden_ND, head_VD, head_ids(head_VD), temperature, there_NR));
}

void check_draws(const HeadLoss& loss, const at::Tensor& hidden_ND, const at::Tensor& head_VD, const Targets& like,
                 double scale) {
  check_draws_from(loss, hidden_ND, head_VD, like, scale, /*proposal_temperature=*/1);
  if (like.loss == "sample") check_draws_from(loss, hidden_ND, head_VD, like, scale, kProposal);
}

}  // namespace coppice
