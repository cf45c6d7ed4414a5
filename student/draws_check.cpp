// One draw's part of the gradient is a constant less scale tau head[id], whose variance and range are known. By
// Bernstein's inequality the mean of R such is off its expectation by more than
//   sqrt(2 L variance / R) + 2 L range / (3 R)
// with a probability of 2 e^-L at most, however they are distributed: a rare id is no false alarm.
#include "student/draws_check.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/tensors/draws.h"

namespace coppice {
namespace {

constexpr int64_t kDraws = 4096;
constexpr double kFalseAlarm = 1e-12;
constexpr double kRounding = 1e-4;  // of the gradient were nothing cancelled

}  // namespace

TopK many_draws(const at::Tensor& hidden_ND, const at::Tensor& head_VD, double temperature) {
  const at::Tensor number_NR = at::empty({hidden_ND.size(0), kDraws}, at::kDouble);
  double* const number = number_NR.mutable_data_ptr<double>();
  for (int64_t i = 0; i < number_NR.numel(); ++i)
    number[i] = random_uniform(0, Purpose::label_draws, 0, static_cast<uint64_t>(i));
  return shares_of_draws(draw_ids(hidden_ND, head_VD, temperature, number_NR));
}

void check_draws(const HeadLoss& loss, const at::Tensor& hidden_ND, const at::Tensor& head_VD, const Targets& like,
                 double scale) {
  const at::Tensor teacher_ND = hidden_ND.roll(1, 0) * 1.5;
  Targets dense{.true_label_N = like.true_label_N, .teacher_weight = 1, .loss = "kl", .temperature = like.temperature};
  Targets drawn = dense;
  dense.teacher_hidden_NE = teacher_ND;
  dense.teacher_head_VE = head_VD;
  drawn.loss = "sample";
  drawn.top = many_draws(teacher_ND, head_VD, like.temperature);
  const auto gradient = [&](const Targets& targets) {
    return loss(hidden_ND, head_VD, at::zeros_like(head_VD), targets, scale, /*argmax=*/false)
        .hidden_grad_ND.to(at::kDouble);
  };
  const at::Tensor off_ND = (gradient(drawn) - gradient(dense)).abs(), head = head_VD.to(at::kDouble);
  const at::Tensor q_NV = (teacher_ND.to(at::kDouble).mm(head.t()) / like.temperature).softmax(1),
                   variance_ND = (q_NV.mm(head.square()) - q_NV.mm(head).square()).clamp_min(0),
                   range_D = std::get<0>(head.max(0)) - std::get<0>(head.min(0));
  const double l = std::log(2 * static_cast<double>(off_ND.numel()) / kFalseAlarm), draws = kDraws;
  const at::Tensor allowed_ND =
      scale * like.temperature *
      ((2 * l / draws * variance_ND).sqrt() + 2 * l / (3 * draws) * range_D + kRounding * head.abs().max());
  if (!off_ND.le(allowed_ND).all().item<bool>())
    throw InternalError(
        fmt::format("loss self-test: the gradient of {} draws is {:.2g} times as far off that of the divergence as "
                    "their error allows",
                    kDraws, (off_ND / allowed_ND).max().item<double>()));
}

}  // namespace coppice
