// What the tests of the linear losses share: golden values of tests/golden/mixed_loss.json (made by make_vectors.py),
// random problems, how far off a result is.
#pragma once

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "src/tensors/kernels/loss_rows.h"
#include "src/tensors/ops.h"
#include "tests/tensors/placements.h"

namespace coppice {

using Doubles = std::vector<double>;

inline nlohmann::json read_golden() {
  return nlohmann::json::parse(std::ifstream(COPPICE_SOURCE_DIR "/tests/golden/mixed_loss.json"));
}
inline Doubles golden_row(const nlohmann::json& golden, const char* name, int64_t row) {
  const Doubles all = golden[name].get<Doubles>();
  const auto vocab = golden["vocab"].get<int64_t>();
  return {all.begin() + row * vocab, all.begin() + (row + 1) * vocab};
}

/// Sums and gradient of a step, read.
struct ReadLoss : LinearLossSums {
  at::Tensor hidden_grad_ND;
};
inline ReadLoss read(const LinearLoss& loss) { return {loss.read(), loss.hidden_grad_ND}; }

/// Largest |a - b| / max(1, |b|) of two tensors; infinite where a NaN stands on either side.
inline double error(const at::Tensor& got, const at::Tensor& wanted) {
  const at::Tensor b = wanted.to(at::kDouble), distance = (got.to(at::kDouble) - b).abs() / b.abs().clamp_min(1.0);
  return distance.numel() == 0                 ? 0.0
         : distance.isnan().any().item<bool>() ? std::numeric_limits<double>::infinity()
                                               : distance.max().item<double>();
}

/// |a - b| / |b| in the 2-norm.
inline double relative(const at::Tensor& got, const at::Tensor& wanted) {
  return (got.to(at::kDouble) - wanted.to(at::kDouble)).norm().item<double>() /
         std::max(1e-30, wanted.norm().item<double>());
}

inline at::Tensor labels(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }
inline at::Tensor row_of(const Doubles& values, at::ScalarType dtype) {
  return at::tensor(values, at::kDouble).to(dtype).unsqueeze(0);
}

/// Every fifth row is ignored; another fifth has the teacher agree with the true label.
struct LossProblem {
  at::Tensor hidden_ND, head_VD, true_label_N, teacher_label_N, teacher_hidden_NE, teacher_head_VE;
};
inline LossProblem make_problem(int64_t rows, int64_t width, int64_t vocab) {
  at::manual_seed(17);
  LossProblem p{.hidden_ND = at::randn({rows, width}),
                .head_VD = at::randn({vocab, width}) / std::sqrt(static_cast<double>(width)),
                .true_label_N = at::randint(vocab, {rows}, at::kLong),
                .teacher_label_N = at::randint(vocab, {rows}, at::kLong),
                .teacher_hidden_NE = at::randn({rows, width + 3}),
                .teacher_head_VE = 2 * at::randn({vocab, width + 3}) / std::sqrt(static_cast<double>(width))};
  for (int64_t n = 0; n < rows; n += 5) p.true_label_N[n] = kIgnoredLabel;
  for (int64_t n = 1; n < rows; n += 5) p.teacher_label_N[n] = p.true_label_N[n];
  return p;
}

/// The executor takes its time over a row: about a twentieth of many.
inline int64_t rows_on(const OpPlacement& on, int64_t rows) {
  return on.is_emulated() ? std::min(rows, 5 + rows / 20) : rows;
}

/// The problem in numbers that the element type of `on` has, as float32.
inline LossProblem rounded(LossProblem p, const Placement& on) {
  for (at::Tensor* tensor : {&p.hidden_ND, &p.head_VD, &p.teacher_hidden_NE, &p.teacher_head_VE})
    *tensor = tensor->to(on.compute).to(at::kFloat);
  return p;
}

/// The problem where a device computes: what a loss reads, beside the student that differentiate_loss() puts there.
inline LossProblem placed(const LossProblem& p, const Placement& on) {
  return {.hidden_ND = p.hidden_ND,
          .head_VD = p.head_VD,
          .true_label_N = p.true_label_N.to(on.device),
          .teacher_label_N = p.teacher_label_N.to(on.device),
          .teacher_hidden_NE = p.teacher_hidden_NE.to(on.device, on.compute),
          .teacher_head_VE = p.teacher_head_VE.to(on.device, on.compute)};
}

/// How far a loss (relative to 1 + itself) and its gradients (relative, in the 2-norm) may be from those in double of
/// the logits as they were stored: in bfloat16 two roundings, of the logits' gradient and of what comes of it.
struct LossBounds {
  double loss, gradient;
};
inline LossBounds bounds_on(const OpPlacement& on, const LossBounds& float32) {
  if (on.compute == at::kBFloat16) return {.loss = 1e-5, .gradient = 0x1p-8};
  if (on.is_emulated()) return {.loss = std::max(2e-6, float32.loss), .gradient = std::max(3e-6, float32.gradient)};
  return float32;
}

/// Loss, d(hidden) and d(head), on the host, of `loss` on copies of the problem's student at `on`.
struct LossGradients {
  double loss = 0;
  at::Tensor hidden_ND, head_VD;
};
using StudentLoss = std::function<at::Tensor(const at::Tensor& hidden_ND, const at::Tensor& head_VD)>;
inline LossGradients differentiate_loss(const LossProblem& p, const Placement& on, const StudentLoss& loss) {
  const auto copy = [&](const at::Tensor& tensor) {
    return tensor.to(on.device, on.compute, /*non_blocking=*/false, /*copy=*/true).requires_grad_();
  };
  const at::Tensor hidden = copy(p.hidden_ND), head = copy(p.head_VD);
  const at::Tensor value = loss(hidden, head);
  value.backward();
  CHECK((value.scalar_type() == (on.compute == at::kDouble ? at::kDouble : at::kFloat)));
  return {value.item<double>(), hidden.grad().cpu(), head.grad().cpu()};
}
inline LossGradients differentiate_loss(const LossProblem& p, at::ScalarType dtype, const StudentLoss& loss) {
  return differentiate_loss(p, {.device = at::kCPU, .compute = dtype}, loss);
}

/// An op's gradients of hidden states and head against central differences of its own float32 loss, which rounding and
/// curvature leave good to about 1e-4.
inline void check_op_differences(const LossProblem& p, const StudentLoss& loss) {
  constexpr float kStep = 1e-2f;
  const LossGradients ours = differentiate_loss(p, at::kFloat, loss);
  for (const bool of_head : {false, true}) {
    const at::Tensor gradient = of_head ? ours.head_VD : ours.hidden_ND;
    for (int64_t i = 0; i < gradient.size(0); ++i)
      for (int64_t j = 0; j < gradient.size(1); ++j) {
        const auto moved = [&](float step) {
          at::Tensor hidden = p.hidden_ND.clone(), head = p.head_VD.clone();
          (of_head ? head : hidden)[i][j] += step;
          return loss(hidden, head).item<double>();
        };
        CAPTURE(of_head);
        CAPTURE(i);
        CAPTURE(j);
        CHECK(std::abs(gradient[i][j].item<double>() - (moved(kStep) - moved(-kStep)) / (2 * kStep)) <= 5e-4);
      }
  }
}

/// The analytic gradient of a row against central differences: `value(logits)` in double.
inline void check_central_differences(const Doubles& logits, const Doubles& gradient,
                                      const std::function<double(const Doubles&)>& value, double limit) {
  for (size_t v = 0; v < logits.size(); ++v) {
    const auto moved = [&](double step) {
      Doubles shifted = logits;
      shifted[v] += step;
      return value(shifted);
    };
    CAPTURE(v);
    CHECK(std::abs(gradient[v] - (moved(1e-5) - moved(-1e-5)) / 2e-5) <= limit);
  }
}

}  // namespace coppice
