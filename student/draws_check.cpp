// One draw's part of the gradient is a constant less scale tau m head[id], m the probability of all that is drawn from
// (1, but of loss hybrid what its ids leave over), whose variance and range are known. By Bernstein's inequality the
// mean of R such is off its expectation by more than
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

int64_t head_ids(const at::Tensor& head_VD) { return std::min(kHeadIds, head_VD.size(0)); }

}  // namespace

TopK many_draws(const std::string& loss, const at::Tensor& hidden_ND, const at::Tensor& head_VD, double temperature) {
  const at::Tensor number_NR = at::empty({hidden_ND.size(0), kDraws}, at::kDouble);
  double* const number = number_NR.mutable_data_ptr<double>();
  for (int64_t i = 0; i < number_NR.numel(); ++i)
    number[i] = random_uniform(0, Purpose::label_draws, 0, static_cast<uint64_t>(i));
  const at::Tensor there_NR = number_NR.to(hidden_ND.device());
  if (loss == "sample") return shares_of_draws(draw_ids(hidden_ND, head_VD, temperature, there_NR));
  return shares_of_head_and_draws(top_k_and_draws(hidden_ND, head_VD, head_ids(head_VD), temperature, there_NR));
}

void check_draws(const HeadLoss& loss, const at::Tensor& hidden_ND, const at::Tensor& head_VD, const Targets& like,
                 double scale) {
  const at::Tensor teacher_ND = hidden_ND.roll(1, 0) * 1.5;
  Targets dense{.true_label_N = like.true_label_N, .teacher_weight = 1, .loss = "kl", .temperature = like.temperature};
  Targets drawn = dense;
  dense.teacher_hidden_NE = teacher_ND;
  dense.teacher_head_VE = head_VD;
  drawn.loss = like.loss;
  drawn.top = many_draws(like.loss, teacher_ND, head_VD, like.temperature);
  const auto gradient = [&](const Targets& targets) {
    const at::Tensor head_grad_VD = at::zeros(head_VD.sizes(), head_VD.options().dtype(at::kFloat));
    return loss(hidden_ND, head_VD, head_grad_VD, targets, scale, /*argmax=*/false).hidden_grad_ND.to(at::kDouble);
  };
  const at::Tensor off_ND = (gradient(drawn) - gradient(dense)).abs(), head = head_VD.to(at::kDouble);
  at::Tensor q_NV = (teacher_ND.to(at::kDouble).mm(head.t()) / like.temperature).softmax(1);
  if (like.loss == "hybrid") q_NV.scatter_(1, drawn.top.id_NK.narrow(1, 0, head_ids(head_VD)), 0.0);  // none of these
  const at::Tensor mass_N1 = q_NV.sum(1, /*keepdim=*/true),
                   variance_ND = (mass_N1 * q_NV.mm(head.square()) - q_NV.mm(head).square()).clamp_min(0),
                   range_ND = mass_N1 * (std::get<0>(head.max(0)) - std::get<0>(head.min(0)));
  const double rounding = hidden_ND.scalar_type() == at::kBFloat16 ? kNarrowRounding : kRounding;
  const double l = std::log(2 * static_cast<double>(off_ND.numel()) / kFalseAlarm), draws = kDraws;
  const at::Tensor allowed_ND =
      scale * like.temperature *
      ((2 * l / draws * variance_ND).sqrt() + 2 * l / (3 * draws) * range_ND + rounding * head.abs().max());
  if (!off_ND.le(allowed_ND).all().item<bool>())
    throw InternalError(
        fmt::format("loss self-test: the gradient of {} draws is {:.2g} times as far off that of the divergence as "
                    "their error allows",
                    kDraws, (off_ND / allowed_ND).max().item<double>()));
}

}  // namespace coppice
