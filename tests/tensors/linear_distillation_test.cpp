// Distillation from a dense teacher: golden values, finite differences, parity with plain tensor code in double,
// chunks, edges.
#include "src/tensors/kernels/linear_distillation.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "tests/tensors/loss_problem.h"

using namespace coppice;

namespace {

const std::vector<std::pair<std::string, DistillationLoss>> kLosses = {
    {"kl", DistillationLoss::kl}, {"reverse_kl", DistillationLoss::reverse_kl}, {"jsd", DistillationLoss::jsd}};

/// The loss out of stock parts, mean over live rows.
at::Tensor plain_loss(const at::Tensor& logits_NV, const at::Tensor& teacher_logits_NV, const at::Tensor& true_label_N,
                      const DistillationOptions& options) {
  const at::Tensor live_N = true_label_N.ne(kIgnoredLabel).nonzero().squeeze(1);
  const at::Tensor z = logits_NV.index_select(0, live_N), u = teacher_logits_NV.index_select(0, live_N),
                   label = true_label_N.index_select(0, live_N);
  const double tau = options.temperature;
  const at::Tensor log_p = (z / tau).log_softmax(1), log_q = (u / tau).log_softmax(1), p = log_p.exp(), q = log_q.exp();
  at::Tensor divergence;
  if (options.loss == "kl") {
    divergence = (q * (log_q - log_p)).sum(1);
  } else if (options.loss == "reverse_kl") {
    divergence = (p * (log_p - log_q)).sum(1);
  } else {
    const at::Tensor log_m = (options.beta * q + (1 - options.beta) * p).log();
    divergence = options.beta * (q * (log_q - log_m)).sum(1) + (1 - options.beta) * (p * (log_p - log_m)).sum(1);
  }
  const at::Tensor lse = z.logsumexp(1), ce = lse - z.gather(1, label.unsqueeze(1)).squeeze(1);
  return ((1 - options.teacher_weight) * ce + options.teacher_weight * tau * tau * divergence +
          options.z_loss * lse.square())
      .mean();
}

void check_against_plain_loss(const OpPlacement& on) {
  const LossBounds bounds = bounds_on(on, {.loss = 2e-6, .gradient = 3e-6});
  for (const auto& [rows, width, vocab] :
       {std::tuple<int64_t, int64_t, int64_t>{2500, 12, 512}, {700, 16, 5003}, {65, 33, 257}, {7, 5, 129}})
    for (const auto& [name, loss] : kLosses)
      for (const auto& [w, tau] : {std::pair{1.0, 1.0}, {0.9, 1.0}, {0.5, 2.0}}) {
        CAPTURE(name);
        CAPTURE(rows);
        CAPTURE(tau);
        const LossProblem p = rounded(make_problem(rows_on(on, rows), width, vocab), on), there = placed(p, on);
        const DistillationOptions options{
            .loss = name, .teacher_weight = w, .temperature = tau, .beta = 0.3, .z_loss = 1e-4};
        const LossGradients ours = differentiate_loss(p, on, [&](const at::Tensor& hidden, const at::Tensor& head) {
          return linear_distillation(hidden, head, there.teacher_hidden_NE, there.teacher_head_VE, there.true_label_N,
                                     options);
        });
        const at::Tensor teacher =
            stored(p.teacher_hidden_NE.to(at::kDouble).mm(p.teacher_head_VE.to(at::kDouble).t()), on);
        const LossGradients wanted =
            differentiate_loss(p, at::kDouble, [&](const at::Tensor& hidden, const at::Tensor& head) {
              return plain_loss(stored(hidden.mm(head.t()), on), teacher, p.true_label_N, options);
            });
        CHECK(ours.loss == doctest::Approx(wanted.loss).epsilon(bounds.loss));
        CHECK(relative(ours.hidden_ND, wanted.hidden_ND) <= bounds.gradient);
        CHECK(relative(ours.head_VD, wanted.head_VD) <= bounds.gradient);
      }
}

}  // namespace

TEST_SUITE("golden") {
  TEST_CASE("distillation: full KL and JSD at two temperatures") {
    const nlohmann::json golden = read_golden();
    const Doubles z = golden_row(golden, "logits", 0), u = golden_row(golden, "teacher_logits", 0);
    const at::Tensor eye = at::eye(golden["vocab"].get<int64_t>());
    int num_cases = 0;
    for (const nlohmann::json& c : golden["optional_losses"]) {
      if (c["kind"] != "full_kl" && c["kind"] != "jsd") continue;
      ++num_cases;
      const bool jsd = c["kind"] == "jsd";
      const double tau = c["tau"], beta = jsd ? c["beta"].get<double>() : 0.5, loss = c["loss"];
      CAPTURE(c["kind"].get<std::string>());
      CAPTURE(tau);
      CAPTURE(beta);
      const at::Tensor wanted = at::tensor(c["grad"].get<Doubles>(), at::kDouble);
      Doubles gradient(z.size());
      const LossRow row = distillation_reference(z, u, 0,
                                                 {.loss = jsd ? DistillationLoss::jsd : DistillationLoss::kl,
                                                  .teacher_weight = 1,
                                                  .temperature = tau,
                                                  .beta = beta},
                                                 gradient);
      CHECK(std::abs(row.kd - loss) <= 1e-12 * std::max(1.0, std::abs(loss)));
      CHECK(error(at::tensor(gradient, at::kDouble), wanted) <= 1e-12);
      const at::Tensor hidden = row_of(z, at::kFloat).requires_grad_();  // the identity as both heads: logits = hidden
      const at::Tensor ours =
          linear_distillation(hidden, eye, row_of(u, at::kFloat), eye, labels({0}),
                              {.loss = jsd ? "jsd" : "kl", .teacher_weight = 1, .temperature = tau, .beta = beta});
      ours.backward();
      CHECK(std::abs(ours.item<double>() - loss) <= 2e-6 * std::max(1.0, std::abs(loss)));
      CHECK(error(hidden.grad()[0], wanted) <= 2e-6);
    }
    CHECK(num_cases == 8);
  }
}

TEST_SUITE("grad") {
  TEST_CASE("distillation: gradient of the reference by central differences") {
    const Doubles z{0.3, -1.2, 2.5, 0.0, 1.1, -4.0}, u{1.3, 0.2, -2.5, 3.0, 0.1, -1.0};
    for (const auto& [name, loss] : kLosses)
      for (const double w : {0.0, 0.6, 1.0})
        for (const double tau : {0.7, 1.0, 2.0})
          for (const double beta : {0.1, 0.5, 0.8}) {
            CAPTURE(name);
            const DistillationSettings settings{
                .loss = loss, .teacher_weight = w, .temperature = tau, .beta = beta, .z_loss = 0.05};
            const auto value = [&](const Doubles& logits) {
              const LossRow row = distillation_reference(logits, u, 2, settings, {});
              return (1 - w) * row.ce + w * row.kd + row.z;
            };
            Doubles gradient(z.size());
            distillation_reference(z, u, 2, settings, gradient);
            check_central_differences(z, gradient, value, 1e-8);
          }
  }

  TEST_CASE("distillation: the op's gradients by central differences of the op's own loss") {
    const LossProblem p = make_problem(6, 4, 9);
    for (const auto& [name, loss] : kLosses) {
      CAPTURE(name);
      const DistillationOptions options{
          .loss = name, .teacher_weight = 0.7, .temperature = 1.5, .beta = 0.3, .z_loss = 1e-2};
      check_op_differences(p, [&](const at::Tensor& hidden, const at::Tensor& head) {
        return linear_distillation(hidden, head, p.teacher_hidden_NE, p.teacher_head_VE, p.true_label_N, options);
      });
    }
  }
}

TEST_SUITE("parity") {
  TEST_CASE("distillation: many chunks equal plain tensor code in double") {
    on_each(host_placements(), check_against_plain_loss);
  }

  TEST_CASE("distillation_step: sums, scale, accumulation, counts; forward only is the same") {
    const LossProblem p = make_problem(400, 16, 700);
    const DistillationOptions options{
        .loss = "jsd", .teacher_weight = 0.8, .temperature = 1.0, .beta = 0.4, .z_loss = 1e-3};
    const auto step = [&](const at::Tensor& head_grad) {
      return read(distillation_step({.hidden_ND = p.hidden_ND,
                                     .head_VD = p.head_VD,
                                     .head_grad_VD = head_grad,
                                     .true_label_N = p.true_label_N,
                                     .scale = 0.125,
                                     .argmax = true},
                                    p.teacher_hidden_NE, p.teacher_head_VE, options));
    };
    const at::Tensor once = at::zeros_like(p.head_VD), twice = at::full_like(p.head_VD, 2.0);
    const ReadLoss sums = step(once), again = step(twice), forward = step({});
    CHECK(sums.num_live == 320);
    CHECK(error(twice - 2.0, once) <= 1e-6);
    CHECK(!forward.hidden_grad_ND.defined());
    for (const auto member : {&LinearLossSums::ce, &LinearLossSums::kd, &LinearLossSums::z}) {
      CHECK(again.*member == sums.*member);
      CHECK(forward.*member == sums.*member);
    }
    CHECK(at::equal(sums.hidden_grad_ND, again.hidden_grad_ND));
    const at::Tensor best = p.hidden_ND.mm(p.head_VD.t()).argmax(1),
                     teacher_best = p.teacher_hidden_NE.mm(p.teacher_head_VE.t()).argmax(1),
                     live = p.true_label_N.ge(0);
    CHECK(sums.correct == best.eq(p.true_label_N).sum().item<int64_t>());
    CHECK(sums.agree == (best.eq(teacher_best) & live).sum().item<int64_t>());
  }
}

TEST_SUITE("unit") {
  TEST_CASE("distillation: a row worked out by hand") {
    // student (0, ln 3): p = (1/4, 3/4); teacher (ln 3, 0): q = (3/4, 1/4). KL = 3/4 ln 3 + 1/4 ln(1/3) = ln(3)/2, both
    // ways; m = 1/2: JSD(1/2) = KL(q | m).
    const double log_3 = std::log(3.0);
    for (const auto& [name, loss] : kLosses) {
      CAPTURE(name);
      std::vector<float> z{0.0f, static_cast<float>(log_3)}, u{static_cast<float>(log_3), 0.0f};
      const std::vector<int64_t> label{0};
      LossRow row;
      distillation_cpu({.logits = z.data(),
                        .teacher_logits = u.data(),
                        .true_label = label.data(),
                        .rows = &row,
                        .num_rows = 1,
                        .num_vocab = 2,
                        .settings = {.loss = loss, .teacher_weight = 1},
                        .scale = 1,
                        .write_gradient = true,
                        .argmax = true});
      CHECK(row.ce == doctest::Approx(std::log(4.0)));
      CHECK(row.kd ==
            doctest::Approx(loss == DistillationLoss::jsd ? 0.75 * std::log(1.5) + 0.25 * std::log(0.5) : log_3 / 2));
      CHECK(row.top_1 == 1);
      CHECK(row.teacher_top_1 == 0);
      // kl: p - q = -1/2. reverse: p0 (log(p0/q0) - KL) = 1/4 (-ln 3 - ln(3)/2). jsd: p0 (h0 - sum p h), h = 1/2
      // log(p/m) = 1/2 (ln 1/2, ln 3/2).
      const double h_0 = 0.5 * std::log(0.5), h_1 = 0.5 * std::log(1.5);
      const double wanted = loss == DistillationLoss::kl           ? -0.5
                            : loss == DistillationLoss::reverse_kl ? -0.375 * log_3
                                                                   : 0.25 * (h_0 - (0.25 * h_0 + 0.75 * h_1));
      CHECK(z[0] == doctest::Approx(wanted).epsilon(1e-6));
      CHECK(z[1] == doctest::Approx(-wanted).epsilon(1e-6));
    }
  }

  TEST_CASE("distillation: a student that is its own teacher pays nothing and stays where it is") {
    const LossProblem p = make_problem(300, 16, 900);
    for (const auto& [name, loss] : kLosses)
      for (const double tau : {1.0, 3.0}) {
        CAPTURE(name);
        const at::Tensor head_grad = at::zeros_like(p.head_VD);
        const ReadLoss sums =
            read(distillation_step({.hidden_ND = p.hidden_ND,
                                    .head_VD = p.head_VD,
                                    .head_grad_VD = head_grad,
                                    .true_label_N = p.true_label_N,
                                    .scale = 1.0 / 240,
                                    .argmax = true},
                                   p.hidden_ND, p.head_VD, {.loss = name, .teacher_weight = 1, .temperature = tau}));
        CHECK(std::abs(sums.kd) <= 240 * 1e-7);
        CHECK(sums.hidden_grad_ND.abs().max().item<double>() <= 1e-8);
        CHECK(sums.agree == sums.num_live);
      }
  }

  TEST_CASE("distillation: certain rows and logits of 1e4 stay finite") {
    const at::Tensor eye = at::eye(4), z = at::tensor({1e4f, 0.0f, -1e4f, 5.0f}).unsqueeze(0),
                     u = at::tensor({-1e4f, 1e4f, 0.0f, 3.0f}).unsqueeze(0);
    for (const auto& [name, loss] : kLosses) {
      CAPTURE(name);
      const at::Tensor hidden = z.clone().requires_grad_();
      const at::Tensor value =
          linear_distillation(hidden, eye, u, eye, labels({1}), {.loss = name, .teacher_weight = 0.9});
      value.backward();
      CHECK(value.isfinite().item<bool>());
      CHECK(hidden.grad().isfinite().all().item<bool>());
      if (loss == DistillationLoss::jsd)
        CHECK(value.item<double>() == doctest::Approx(0.1 * 1e4 + 0.9 * std::log(2.0)).epsilon(1e-5));
    }
  }

  TEST_CASE("distillation: ignored rows and no live row") {
    const LossProblem p = make_problem(10, 8, 30);
    for (const auto& [name, loss] : kLosses) {
      const DistillationOptions options{
          .loss = name, .teacher_weight = 0.9, .temperature = 2, .beta = 0.5, .z_loss = 1e-3};
      const auto run = [&](const at::Tensor& label) {
        return differentiate_loss(p, at::kFloat, [&](const at::Tensor& hidden, const at::Tensor& head) {
          return linear_distillation(hidden, head, p.teacher_hidden_NE, p.teacher_head_VE, label, options);
        });
      };
      const LossGradients some = run(p.true_label_N), none = run(at::full({10}, kIgnoredLabel, at::kLong));
      CHECK(some.hidden_ND[5].eq(0).all().item<bool>());
      CHECK(some.hidden_ND[6].ne(0).any().item<bool>());
      CHECK(none.loss == 0);
      CHECK(none.hidden_ND.eq(0).all().item<bool>());
      CHECK(none.head_VD.eq(0).all().item<bool>());
    }
  }

  TEST_CASE("distillation: what does not fit is refused") {
    const LossProblem p = make_problem(4, 8, 9);
    const auto run = [&](const at::Tensor& teacher_hidden, const at::Tensor& teacher_head,
                         const DistillationOptions& options) {
      linear_distillation(p.hidden_ND, p.head_VD, teacher_hidden, teacher_head, p.true_label_N, options);
    };
    run(p.teacher_hidden_NE, p.teacher_head_VE, {});
    CHECK_THROWS_AS(run(p.teacher_hidden_NE.narrow(0, 0, 3), p.teacher_head_VE, {}), InternalError);
    CHECK_THROWS_AS(run(p.teacher_hidden_NE, p.teacher_head_VE.narrow(0, 0, 8), {}), InternalError);
    CHECK_THROWS_AS(run(p.teacher_hidden_NE, p.teacher_head_VE, {.loss = "kll"}), InternalError);
    CHECK_THROWS_AS(run(p.teacher_hidden_NE, p.teacher_head_VE, {.teacher_weight = 1.5}), InternalError);
    CHECK_THROWS_AS(run(p.teacher_hidden_NE, p.teacher_head_VE, {.temperature = 0}), InternalError);
    CHECK_THROWS_AS(run(p.teacher_hidden_NE, p.teacher_head_VE, {.loss = "jsd", .beta = 1}), InternalError);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("distillation: many chunks equal plain tensor code in double: on a device") {
    on_each(device_placements(), check_against_plain_loss);
  }
}
