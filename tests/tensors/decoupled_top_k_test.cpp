// Distillation in two terms, mass of the k ids and shares within them: by hand, against plain tensor code, against the
// loss that it is at temperature 1.
#include "src/tensors/decoupled_top_k.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "src/base/errors.h"
#include "src/tensors/kernels/linear_loss.h"
#include "tests/tensors/loss_problem.h"

using namespace coppice;

namespace {

/// Mean over live rows, as a function of hidden states and head.
at::Tensor mean_loss(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& true_label_N,
                     const TopK& top, double w, double tau, double z_loss) {
  return mean_linear_loss(
      hidden_ND, head_VD, true_label_N, w,
      [=](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, double scale) {
        return decoupled_top_k_step({.hidden_ND = hidden,
                                     .head_VD = head,
                                     .head_grad_VD = head_grad,
                                     .true_label_N = true_label_N,
                                     .scale = scale},
                                    top, w, tau, z_loss);
      });
}

/// The same out of stock parts; every row has k entries.
at::Tensor plain_loss(const at::Tensor& logits_NV, const at::Tensor& true_label_N, const TopK& top, double w,
                      double tau, double z_loss) {
  const at::Tensor live_N = true_label_N.ne(kIgnoredLabel).nonzero().squeeze(1);
  const at::Tensor z = logits_NV.index_select(0, live_N), label = true_label_N.index_select(0, live_N),
                   id = top.id_NK.index_select(0, live_N),
                   q = top.logp_NK.to(z.scalar_type()).index_select(0, live_N).exp(),
                   q_rest = top.tail_logp_N.to(z.scalar_type()).index_select(0, live_N).exp();
  const at::Tensor p = z.softmax(1), p_rest = p.scatter(1, id, 0.0).sum(1), p_inside = p.gather(1, id).sum(1),
                   q_inside = q.sum(1);
  const at::Tensor root = q.pow(1 / tau), a = root / root.sum(1, /*keepdim=*/true),
                   b = (z.gather(1, id) / tau).softmax(1);
  const at::Tensor masses = q_inside * (q_inside / p_inside).log() +
                            at::where(q_rest.gt(0), q_rest * (q_rest / p_rest).log(), at::zeros_like(q_rest));
  const at::Tensor within = (a * (a / b).log()).sum(1);
  const at::Tensor lse = z.logsumexp(1), ce = lse - z.gather(1, label.unsqueeze(1)).squeeze(1);
  return ((1 - w) * ce + w * (masses + tau * tau * q_inside * within) + z_loss * lse.square()).mean();
}

void check_against_plain_loss(const OpPlacement& on) {
  const LossBounds bounds = bounds_on(on, {.loss = 2e-6, .gradient = 3e-6});
  for (const auto& [rows, width, vocab, k] :
       {std::tuple<int64_t, int64_t, int64_t, int64_t>{2500, 12, 512, 8}, {700, 16, 5003, 64}, {65, 33, 257, 1}})
    for (const auto& [w, tau] : {std::pair{1.0, 2.0}, {0.9, 0.7}, {0.5, 5.0}}) {
      CAPTURE(rows);
      CAPTURE(tau);
      const LossProblem p = rounded(make_problem(rows_on(on, rows), width, vocab), on), there = placed(p, on);
      const TopK found = top_k(there.teacher_hidden_NE, there.teacher_head_VE, k, 1.0);
      const LossGradients ours =
          differentiate_loss(p, on, [&, w = w, tau = tau](const at::Tensor& hidden, const at::Tensor& head) {
            return mean_loss(hidden, head, there.true_label_N, found, w, tau, 1e-4);
          });
      const TopK top = {
          .id_NK = found.id_NK.cpu(), .logp_NK = found.logp_NK.cpu(), .tail_logp_N = found.tail_logp_N.cpu()};
      const LossGradients wanted =
          differentiate_loss(p, at::kDouble, [&, w = w, tau = tau](const at::Tensor& hidden, const at::Tensor& head) {
            return plain_loss(stored(hidden.mm(head.t()), on), p.true_label_N, top, w, tau, 1e-4);
          });
      CHECK(ours.loss == doctest::Approx(wanted.loss).epsilon(bounds.loss));
      CHECK(relative(ours.hidden_ND, wanted.hidden_ND) <= bounds.gradient);
      CHECK(relative(ours.head_VD, wanted.head_VD) <= bounds.gradient);
    }
}

/// One row of logits with its loss and gradient; the head is the identity.
struct OneRow {
  double kd;
  at::Tensor gradient_V;
};
OneRow one_row(const Doubles& logits, const std::vector<int64_t>& id, const Doubles& q, double rest, double tau) {
  const auto vocab = static_cast<int64_t>(logits.size());
  Doubles log_q;
  for (const double value : q) log_q.push_back(std::log(value));
  const TopK top{.id_NK = labels(id).unsqueeze(0),
                 .logp_NK = row_of(log_q, at::kFloat),
                 .tail_logp_N = at::full({1}, std::log(rest), at::kFloat)};
  const ReadLoss loss = read(decoupled_top_k_step({.hidden_ND = row_of(logits, at::kFloat),
                                                   .head_VD = at::eye(vocab),
                                                   .head_grad_VD = at::zeros({vocab, vocab}),
                                                   .true_label_N = labels({0})},
                                                  top, 1.0, tau, 0.0));
  return {loss.kd, loss.hidden_grad_ND[0]};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("decoupled_top_k: by hand") {
    // p = 0.4, 0.3, 0.2, 0.1; S = {0, 2} with q = 0.5, 0.2 and 0.3 in the rest; P = 0.6, Q = 0.7.
    // masses: 0.7 ln(7/6) + 0.3 ln(3/4) = 0.02160085. At tau = 2 shares are of roots: a = sqrt 5 / (sqrt 5 + sqrt 2) =
    // 0.61257411, b = 2 / (2 + sqrt 2) = 0.58578644, and sum a ln(a / b) = 0.00148886, times 4 Q = 2.8.
    const Doubles logits{std::log(4.0), std::log(3.0), std::log(2.0), 0.0};
    const OneRow row = one_row(logits, {0, 2}, {0.5, 0.2}, 0.3, 2.0);
    CHECK(row.kd == doctest::Approx(0.02576966217).epsilon(3e-6));
    // in S p (1 - 7/6) + 1.4 (b - a), in the rest p (1 - 3/4)
    CHECK(error(row.gradient_V, at::tensor({-0.10416941258, 0.075, 0.00416941258, 0.025}, at::kDouble)) <= 1e-6);
    // at tau = 1 the shares are 5/7 against 2/3: all in all sum_S q ln(q / p) + 0.3 ln(0.3 / 0.4)
    CHECK(one_row(logits, {0, 2}, {0.5, 0.2}, 0.3, 1.0).kd ==
          doctest::Approx(0.5 * std::log(0.5 / 0.4) + 0.3 * std::log(0.3 / 0.4)).epsilon(3e-6));
  }

  TEST_CASE("decoupled_top_k: whatever the temperature, the rest is pulled as one, along its own probabilities") {
    const Doubles logits{0.3, -1.2, 2.5, 0.0, 1.1, -4.0};
    for (const double tau : {0.5, 1.0, 4.0}) {
      CAPTURE(tau);
      const OneRow row = one_row(logits, {4, 0}, {0.5, 0.2}, 0.3, tau);
      const double pull = row.gradient_V[2].item<double>() / std::exp(2.5);
      for (const int64_t id : {1, 3, 5})
        CHECK(row.gradient_V[id].item<double>() / std::exp(logits[static_cast<size_t>(id)]) ==
              doctest::Approx(pull).epsilon(1e-4).scale(0));
      CHECK(std::abs(row.gradient_V.sum().item<double>()) <= 1e-6);
    }
    // what a temperature does not reach: how the student shares out the rest
    Doubles moved = logits;
    std::swap(moved[2], moved[3]);
    CHECK(one_row(moved, {4, 0}, {0.5, 0.2}, 0.3, 4.0).kd ==
          doctest::Approx(one_row(logits, {4, 0}, {0.5, 0.2}, 0.3, 4.0).kd).epsilon(1e-6));
  }

  TEST_CASE(
      "decoupled_top_k: at temperature 1 it is top-k with its tail, rows without a teacher and ignored ones too") {
    const LossProblem p = make_problem(50, 8, 40);
    TopK top = top_k(p.teacher_hidden_NE, p.teacher_head_VE, 5, 1.0);
    top.id_NK[3].fill_(kIgnoredLabel);
    top.id_NK[7][4].fill_(kIgnoredLabel);
    const auto rows = [&](const at::Tensor& head_grad) {
      return HeadRows{.hidden_ND = p.hidden_ND,
                      .head_VD = p.head_VD,
                      .head_grad_VD = head_grad,
                      .true_label_N = p.true_label_N,
                      .scale = 0.25,
                      .argmax = true};
    };
    const at::Tensor ours_VD = at::zeros_like(p.head_VD), wanted_VD = at::zeros_like(p.head_VD);
    const ReadLoss ours = read(decoupled_top_k_step(rows(ours_VD), top, 0.8, 1.0, 1e-3)),
                   wanted = read(top_k_cross_entropy_step(rows(wanted_VD), top, 0.8, 1.0, 1e-3));
    CHECK(ours.kd == doctest::Approx(wanted.kd).epsilon(1e-6));
    CHECK(ours.ce == doctest::Approx(wanted.ce).epsilon(1e-7));
    CHECK(ours.z == doctest::Approx(wanted.z).epsilon(1e-7));
    CHECK(ours.correct == wanted.correct);
    CHECK(ours.agree == wanted.agree);
    CHECK(relative(ours.hidden_grad_ND, wanted.hidden_grad_ND.to(at::kDouble)) <= 1e-6);
    CHECK(relative(ours_VD, wanted_VD.to(at::kDouble)) <= 1e-6);
    CHECK(ours.hidden_grad_ND[5].eq(0).all().item<bool>());
    // a row without a teacher is plain at any temperature
    const ReadLoss soft = read(decoupled_top_k_step(rows(at::zeros_like(p.head_VD)), top, 0.8, 3.0, 1e-3));
    CHECK(error(soft.hidden_grad_ND[3], wanted.hidden_grad_ND[3]) <= 1e-7);
    CHECK(error(soft.hidden_grad_ND[4], wanted.hidden_grad_ND[4]) > 1e-4);
    CHECK(read(decoupled_top_k_step(rows({}), top, 0.8, 3.0, 1e-3)).kd == soft.kd);
  }

  TEST_CASE(
      "decoupled_top_k: a student that has lost the rest or the k ids, and a teacher without either, stay finite") {
    const auto finite = [](const OneRow& row) {
      CHECK(std::isfinite(row.kd));
      CHECK(row.gradient_V.isfinite().all().item<bool>());
    };
    finite(one_row({200.0, 0.0, -50.0}, {0}, {0.5}, 0.5, 2.0));
    finite(one_row({200.0, 0.0, -50.0}, {2}, {0.5}, 0.5, 2.0));
    finite(one_row({2.0, 0.0, -5.0}, {0, 1}, {0.5, 0.5}, 0.0, 2.0));
    const OneRow nothing = one_row({2.0, 0.0, -5.0}, {0}, {0.0}, 1.0, 2.0);  // all of it in the rest
    finite(nothing);
    CHECK(nothing.kd == doctest::Approx(-std::log((1 + std::exp(-5.0)) / (std::exp(2.0) + 1 + std::exp(-5.0)))));
    finite(one_row({1e4, 0.0, -1e4}, {2, 1}, {0.5, 0.25}, 0.25, 3.0));
  }

  TEST_CASE("decoupled_top_k: what does not fit is refused") {
    const LossProblem p = make_problem(4, 8, 9);
    const TopK top = top_k(p.teacher_hidden_NE, p.teacher_head_VE, 2, 1.0);
    const auto run = [&](const TopK& labels, double w, double tau) {
      decoupled_top_k_step({.hidden_ND = p.hidden_ND, .head_VD = p.head_VD, .true_label_N = p.true_label_N}, labels, w,
                           tau, 0.0);
    };
    run(top, 0.9, 1.0);
    CHECK_THROWS_AS(run({top.id_NK + 7, top.logp_NK, top.tail_logp_N}, 0.9, 1.0), InternalError);
    CHECK_THROWS_AS(run({top.id_NK, top.logp_NK.narrow(1, 0, 1), top.tail_logp_N}, 0.9, 1.0), InternalError);
    CHECK_THROWS_AS(run(top, -0.1, 1.0), InternalError);
    CHECK_THROWS_AS(run(top, 0.9, 0.0), InternalError);
  }
}

TEST_SUITE("grad") {
  TEST_CASE("decoupled_top_k: the gradients by central differences of the loss itself") {
    const LossProblem p = make_problem(6, 4, 9);
    for (const auto& [k, tau] : {std::pair<int64_t, double>{1, 2.0}, {3, 1.5}, {9, 3.0}}) {  // with a rest, and without
      CAPTURE(k);
      const TopK top = top_k(p.teacher_hidden_NE, p.teacher_head_VE, k, 1.0);
      check_op_differences(p, [&, tau = tau](const at::Tensor& hidden, const at::Tensor& head) {
        return mean_loss(hidden, head, p.true_label_N, top, 0.7, tau, 1e-2);
      });
    }
  }
}

TEST_SUITE("parity") {
  TEST_CASE("decoupled_top_k: many chunks equal plain tensor code in double") {
    on_each(host_placements(), check_against_plain_loss);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("decoupled_top_k: many chunks equal plain tensor code in double: on a device") {
    on_each(device_placements(), check_against_plain_loss);
  }
}
