// Distillation from stored top-k probabilities with their tail, and the operation that takes them from a teacher.
#include "src/tensors/kernels/linear_top_k_cross_entropy.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "tests/tensors/loss_problem.h"

using namespace coppice;

namespace {

/// The loss out of stock parts, mean over live rows; every row has k entries.
at::Tensor plain_loss(const at::Tensor& logits_NV, const at::Tensor& true_label_N, const TopK& top, double w,
                      double tau, double z_loss) {
  const at::Tensor live_N = true_label_N.ne(kIgnoredLabel).nonzero().squeeze(1);
  const at::Tensor z = logits_NV.index_select(0, live_N), label = true_label_N.index_select(0, live_N),
                   id = top.id_NK.index_select(0, live_N);
  const at::Tensor log_q = top.logp_NK.to(z.scalar_type()).index_select(0, live_N),
                   q_tail = top.tail_logp_N.to(z.scalar_type()).index_select(0, live_N).exp();
  const at::Tensor log_p = (z / tau).log_softmax(1), p_tail = log_p.exp().scatter(1, id, 0.0).sum(1);
  const at::Tensor kl = (log_q.exp() * (log_q - log_p.gather(1, id))).sum(1) +
                        at::where(q_tail.gt(0), q_tail * (q_tail / p_tail).log(), at::zeros_like(q_tail));
  const at::Tensor lse = z.logsumexp(1), ce = lse - z.gather(1, label.unsqueeze(1)).squeeze(1);
  return ((1 - w) * ce + w * tau * tau * kl + z_loss * lse.square()).mean();
}

void check_against_plain_loss(const OpPlacement& on) {
  const LossBounds bounds = bounds_on(on, {.loss = 2e-6, .gradient = 3e-6});
  for (const auto& [rows, width, vocab, k] :
       {std::tuple<int64_t, int64_t, int64_t, int64_t>{2500, 12, 512, 8}, {700, 16, 5003, 64}, {65, 33, 257, 1}})
    for (const auto& [w, tau] : {std::pair{1.0, 1.0}, {0.9, 1.0}, {0.5, 2.0}}) {
      CAPTURE(rows);
      CAPTURE(tau);
      const LossProblem p = rounded(make_problem(rows_on(on, rows), width, vocab), on), there = placed(p, on);
      const TopK found = top_k(there.teacher_hidden_NE, there.teacher_head_VE, k, tau);
      const LossGradients ours = differentiate_loss(p, on, [&](const at::Tensor& hidden, const at::Tensor& head) {
        return linear_top_k_cross_entropy(hidden, head, there.true_label_N, found, w, tau, 1e-4);
      });
      const TopK top = {
          .id_NK = found.id_NK.cpu(), .logp_NK = found.logp_NK.cpu(), .tail_logp_N = found.tail_logp_N.cpu()};
      const LossGradients wanted =
          differentiate_loss(p, at::kDouble, [&](const at::Tensor& hidden, const at::Tensor& head) {
            return plain_loss(stored(hidden.mm(head.t()), on), p.true_label_N, top, w, tau, 1e-4);
          });
      CHECK(ours.loss == doctest::Approx(wanted.loss).epsilon(bounds.loss));
      CHECK(relative(ours.hidden_ND, wanted.hidden_ND) <= bounds.gradient);
      CHECK(relative(ours.head_VD, wanted.head_VD) <= bounds.gradient);
    }
}

}  // namespace

TEST_SUITE("golden") {
  TEST_CASE("top_k_cross_entropy: loss and gradient for every k and temperature") {
    const nlohmann::json golden = read_golden();
    const Doubles z = golden_row(golden, "logits", 0);
    int num_cases = 0;
    for (const nlohmann::json& c : golden["optional_losses"]) {
      if (c["kind"] != "top_k_tail_kl") continue;
      ++num_cases;
      const double tau = c["tau"], loss = c["loss"];
      const auto id = c["ids"].get<std::vector<int64_t>>();
      const Doubles q = c["teacher_probability"].get<Doubles>();
      CAPTURE(tau);
      CAPTURE(id.size());
      double tail = 1;
      Doubles log_q;
      for (const double value : q) {
        tail -= value;
        log_q.push_back(std::log(value));
      }
      const at::Tensor wanted = at::tensor(c["grad"].get<Doubles>(), at::kDouble);
      Doubles gradient(z.size());
      const LossRow row = top_k_cross_entropy_reference(z, 0, id, log_q, std::log(tail),
                                                        {.teacher_weight = 1, .temperature = tau}, gradient);
      CHECK(std::abs(row.kd - loss) <= 1e-12 * std::max(1.0, std::abs(loss)));
      CHECK(error(at::tensor(gradient, at::kDouble), wanted) <= 1e-12);
      const at::Tensor hidden = row_of(z, at::kFloat).requires_grad_();
      const TopK top{.id_NK = labels(id).unsqueeze(0),
                     .logp_NK = row_of(log_q, at::kFloat),
                     .tail_logp_N = at::full({1}, std::log(tail), at::kFloat)};
      const at::Tensor ours =
          linear_top_k_cross_entropy(hidden, at::eye(golden["vocab"].get<int64_t>()), labels({0}), top, 1.0, tau, 0.0);
      ours.backward();
      CHECK(std::abs(ours.item<double>() - loss) <= 2e-6 * std::max(1.0, std::abs(loss)));
      CHECK(error(hidden.grad()[0], wanted) <= 2e-6);
    }
    CHECK(num_cases == 6);
  }
}

TEST_SUITE("grad") {
  TEST_CASE("top_k_cross_entropy: the op's gradients by central differences of the op's own loss") {
    const LossProblem p = make_problem(6, 4, 9);
    for (const auto& [k, tau] : {std::pair<int64_t, double>{1, 1.0}, {3, 1.5}, {9, 1.0}}) {  // with a tail, and without
      CAPTURE(k);
      const TopK top = top_k(p.teacher_hidden_NE, p.teacher_head_VE, k, tau);
      check_op_differences(p, [&, tau = tau](const at::Tensor& hidden, const at::Tensor& head) {
        return linear_top_k_cross_entropy(hidden, head, p.true_label_N, top, 0.7, tau, 1e-2);
      });
    }
  }

  TEST_CASE(
      "top_k_cross_entropy: gradient of the reference by central differences, whatever the stored mass adds up to") {
    const Doubles z{0.3, -1.2, 2.5, 0.0, 1.1, -4.0};
    const std::vector<int64_t> id{4, 0};
    for (const double w : {0.0, 0.6, 1.0})
      for (const double tau : {0.7, 1.0, 2.0})
        for (const double tail : {0.3, 0.31, 0.0}) {
          const Doubles log_q{std::log(0.5), std::log(0.2)};
          const TopKSettings settings{.teacher_weight = w, .temperature = tau, .z_loss = 0.05};
          const auto value = [&](const Doubles& logits) {
            const LossRow row = top_k_cross_entropy_reference(logits, 2, id, log_q, std::log(tail), settings, {});
            return (1 - w) * row.ce + w * row.kd + row.z;
          };
          Doubles gradient(z.size());
          top_k_cross_entropy_reference(z, 2, id, log_q, std::log(tail), settings, gradient);
          check_central_differences(z, gradient, value, 1e-8);
        }
  }
}

TEST_SUITE("parity") {
  TEST_CASE("top_k: ids, log-probabilities and tail of plain tensor code, ties to the lowest id") {
    for (const auto& [rows, width, vocab, k] : {std::tuple<int64_t, int64_t, int64_t, int64_t>{300, 16, 5003, 64},
                                                {40, 8, 129, 1},
                                                {7, 5, 9, 9},
                                                {500, 12, 512, 10}})
      for (const double tau : {1.0, 2.0}) {
        CAPTURE(vocab);
        const LossProblem p = make_problem(rows, width, vocab);
        const TopK top = top_k(p.hidden_ND, p.head_VD, k, tau);
        const at::Tensor logits = p.hidden_ND.mm(p.head_VD.t()), log_p = (logits.to(at::kDouble) / tau).log_softmax(1);
        const auto [value, id] = logits.sort(/*stable=*/true, 1, /*descending=*/true);
        CHECK(at::equal(top.id_NK, id.narrow(1, 0, k)));
        CHECK(error(top.logp_NK, log_p.gather(1, top.id_NK)) <= 1e-6);
        const at::Tensor tail = log_p.exp().scatter(1, top.id_NK, 0.0).sum(1);
        CHECK(error(top.tail_logp_N.exp(), tail) <= 1e-6);
        if (k < vocab) CHECK(error(top.tail_logp_N, tail.log()) <= 2e-6);
        CHECK(at::equal(top.id_NK.select(1, 0), top_1(p.hidden_ND, p.head_VD)));
      }
    const TopK ties = top_k(at::ones({2, 1}), at::tensor({1.0f, 3.0f, 2.0f, 3.0f, 2.0f, 2.0f}).unsqueeze(1), 4, 1.0);
    CHECK(at::equal(ties.id_NK[0], labels({1, 3, 2, 4})));
  }

  TEST_CASE("top_k_cross_entropy: many chunks equal plain tensor code in double") {
    on_each(host_placements(), check_against_plain_loss);
  }

  TEST_CASE("top_k_cross_entropy: with every id stored it is the full KL") {
    const LossProblem p = make_problem(60, 8, 33);
    const TopK top = top_k(p.teacher_hidden_NE, p.teacher_head_VE, 33, 2.0);
    const LossGradients all = differentiate_loss(p, at::kFloat, [&](const at::Tensor& hidden, const at::Tensor& head) {
      return linear_top_k_cross_entropy(hidden, head, p.true_label_N, top, 0.9, 2.0, 0.0);
    });
    const LossGradients dense =
        differentiate_loss(p, at::kFloat, [&](const at::Tensor& hidden, const at::Tensor& head) {
          return linear_distillation(hidden, head, p.teacher_hidden_NE, p.teacher_head_VE, p.true_label_N,
                                     {.loss = "kl", .teacher_weight = 0.9, .temperature = 2.0});
        });
    CHECK(all.loss == doctest::Approx(dense.loss).epsilon(2e-6));
    CHECK(relative(all.hidden_ND, dense.hidden_ND) <= 3e-6);
  }
}

TEST_SUITE("unit") {
  TEST_CASE("top_k_cross_entropy: one certain id is the label mixture") {
    const LossProblem p = make_problem(50, 8, 40);
    const TopK certain{.id_NK = p.teacher_label_N.unsqueeze(1),
                       .logp_NK = at::zeros({50, 1}),
                       .tail_logp_N = at::full({50}, -INFINITY)};
    const LossGradients ours = differentiate_loss(p, at::kFloat, [&](const at::Tensor& hidden, const at::Tensor& head) {
      return linear_top_k_cross_entropy(hidden, head, p.true_label_N, certain, 0.9, 1.0, 1e-3);
    });
    const LossGradients mixed =
        differentiate_loss(p, at::kFloat, [&](const at::Tensor& hidden, const at::Tensor& head) {
          return linear_mixed_cross_entropy(hidden, head, p.true_label_N, p.teacher_label_N, 0.9, 1e-3);
        });
    CHECK(ours.loss == doctest::Approx(mixed.loss).epsilon(1e-6));
    CHECK(error(ours.hidden_ND, mixed.hidden_ND) <= 1e-6);
    CHECK(error(ours.head_VD, mixed.head_VD) <= 1e-6);
  }

  TEST_CASE(
      "top_k_cross_entropy: a row without a teacher is plain cross-entropy, an ignored row nothing, entries below 0 "
      "are none") {
    const LossProblem p = make_problem(10, 8, 40);
    TopK top = top_k(p.teacher_hidden_NE, p.teacher_head_VE, 3, 1.0);
    const auto run = [&](const at::Tensor& head_grad) {
      return read(top_k_cross_entropy_step({.hidden_ND = p.hidden_ND,
                                            .head_VD = p.head_VD,
                                            .head_grad_VD = head_grad,
                                            .true_label_N = p.true_label_N,
                                            .argmax = true},
                                           top, 0.9, 1.0, 0.0));
    };
    const ReadLoss before = run(at::zeros_like(p.head_VD));
    top.id_NK[3].fill_(kIgnoredLabel);
    const ReadLoss after = run(at::zeros_like(p.head_VD)), forward = run({});
    CHECK(after.hidden_grad_ND[5].eq(0).all().item<bool>());
    CHECK(after.ce == doctest::Approx(before.ce).epsilon(1e-6));  // the k entries are summed apart
    CHECK(forward.kd == after.kd);
    at::Tensor plain_grad = mixed_cross_entropy_step({.hidden_ND = p.hidden_ND,
                                                      .head_VD = p.head_VD,
                                                      .head_grad_VD = at::zeros_like(p.head_VD),
                                                      .true_label_N = p.true_label_N},
                                                     {}, 0.0, 0.0)
                                .hidden_grad_ND;
    CHECK(error(after.hidden_grad_ND[3], plain_grad[3]) <= 1e-6);
    CHECK(at::equal(after.hidden_grad_ND[4], before.hidden_grad_ND[4]));
    TopK wider{.id_NK = at::cat({top.id_NK, at::full({10, 1}, -1, at::kLong)}, 1),
               .logp_NK = at::cat({top.logp_NK, at::zeros({10, 1})}, 1),
               .tail_logp_N = top.tail_logp_N};
    const ReadLoss padded = read(top_k_cross_entropy_step(
        {.hidden_ND = p.hidden_ND, .head_VD = p.head_VD, .true_label_N = p.true_label_N, .argmax = true}, wider, 0.9,
        1.0, 0.0));
    CHECK(padded.kd == after.kd);
  }

  TEST_CASE("top_k_cross_entropy: a tail that the student has lost stays finite") {
    const at::Tensor z = at::tensor({200.0f, 0.0f, -50.0f}).unsqueeze(0);
    const TopK top{.id_NK = labels({0}).unsqueeze(0),
                   .logp_NK = at::full({1, 1}, std::log(0.5f)),
                   .tail_logp_N = at::full({1}, std::log(0.5f))};
    const at::Tensor hidden = z.clone().requires_grad_();
    const at::Tensor loss = linear_top_k_cross_entropy(hidden, at::eye(3), labels({0}), top, 1.0, 1.0, 0.0);
    loss.backward();
    CHECK(loss.isfinite().item<bool>());
    CHECK(hidden.grad().isfinite().all().item<bool>());
  }

  TEST_CASE("top_k_cross_entropy: what does not fit is refused") {
    const LossProblem p = make_problem(4, 8, 9);
    const TopK top = top_k(p.teacher_hidden_NE, p.teacher_head_VE, 2, 1.0);
    const auto run = [&](const TopK& labels, double w, double tau) {
      linear_top_k_cross_entropy(p.hidden_ND, p.head_VD, p.true_label_N, labels, w, tau, 0.0);
    };
    run(top, 0.9, 1.0);
    CHECK_THROWS_AS(run({top.id_NK + 7, top.logp_NK, top.tail_logp_N}, 0.9, 1.0), InternalError);
    CHECK_THROWS_AS(run({top.id_NK, top.logp_NK.narrow(1, 0, 1), top.tail_logp_N}, 0.9, 1.0), InternalError);
    CHECK_THROWS_AS(run(top, -0.1, 1.0), InternalError);
    CHECK_THROWS_AS(run(top, 0.9, 0.0), InternalError);
    CHECK_THROWS_AS(top_k(p.hidden_ND, p.head_VD, 10, 1.0), InternalError);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("top_k_cross_entropy: many chunks equal plain tensor code in double: on a device") {
    on_each(device_placements(), check_against_plain_loss);
  }
}
