// Draws from a teacher's distribution and the loss over them: against the plain inverse of the distribution function in
// double, by hand, and in expectation, which is worked out over every id that could be drawn.
#include "src/tensors/draws.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/tensors/device_waits.h"
#include "src/tensors/transfers.h"
#include "tests/tensors/loss_problem.h"

using namespace coppice;

namespace {

at::Tensor numbers(int64_t rows, int64_t draws, uint64_t step = 0) {
  const at::Tensor number_NR = at::empty({rows, draws}, at::kDouble);
  for (int64_t i = 0; i < rows * draws; ++i)
    number_NR.mutable_data_ptr<double>()[i] = random_uniform(1, Purpose::test, step, static_cast<uint64_t>(i));
  return number_NR;
}

/// The teacher's probabilities in double.
at::Tensor probabilities(const LossProblem& p, double tau) {
  return (p.teacher_hidden_NE.to(at::kDouble).mm(p.teacher_head_VE.to(at::kDouble).t()) / tau).softmax(1);
}

HeadRows rows_of(const LossProblem& p, const at::Tensor& head_grad_VD = {}) {
  return {.hidden_ND = p.hidden_ND,
          .head_VD = p.head_VD,
          .head_grad_VD = head_grad_VD,
          .true_label_N = p.true_label_N,
          .argmax = false};
}

/// Ids and shares are those of the CPU's loops on the same numbers but for draws at the boundary between two ids; the
/// loss over them is the cross-entropy of the shares.
void check_draws(const OpPlacement& on) {
  const LossProblem p = rounded(make_problem(60, 6, 257), on), there = placed(p, on);
  const at::Tensor number_NR = numbers(60, 5),
                   id_NR = draw_ids(there.teacher_hidden_NE, there.teacher_head_VE, 1.5, number_NR);
  const at::Tensor sum_NV = probabilities(p, 1.5).cumsum(1), at_NR = id_NR.cpu();
  const at::Tensor upto = sum_NV.gather(1, at_NR),
                   below = at::where(at_NR.gt(0), sum_NV.gather(1, (at_NR - 1).clamp_min(0)), at::zeros_like(upto));
  CHECK(number_NR.lt(upto + 1e-5).all().item<bool>());
  CHECK(number_NR.ge(below - 1e-5).all().item<bool>());

  TopFacts facts;
  const HeadAndDraws both = top_k_and_draws(there.teacher_hidden_NE, there.teacher_head_VE, 3, 1.5, number_NR, &facts);
  CHECK(facts.not_finite_N().sum().item<int64_t>() == 0);
  const auto [value, head_id] = probabilities(p, 1.5).topk(3, 1);
  CHECK(at::equal(both.top.id_NK.cpu(), head_id));
  CHECK(both.drawn_NR.cpu().unsqueeze(2).eq(head_id.unsqueeze(1)).any().item<bool>() == false);

  const TopK shares = shares_of_draws(id_NR), joint = shares_of_head_and_draws(both);
  CHECK(shares.id_NK.device() == on.device);
  for (const TopK& drawn : {shares, joint}) {
    const at::Tensor hidden_ND = p.hidden_ND.to(on.device, on.compute), head_VD = p.head_VD.to(on.device, on.compute),
                     log_p = (p.hidden_ND.to(at::kDouble).mm(p.head_VD.to(at::kDouble).t()) / 1.5).log_softmax(1);
    const at::Tensor id = drawn.id_NK.cpu(), live = p.true_label_N.ge(0).unsqueeze(1) & id.ge(0);
    const double wanted =
        -(drawn.logp_NK.cpu().to(at::kDouble).exp() * log_p.gather(1, id.clamp_min(0)) * live).sum().item<double>();
    const ReadLoss loss = read(drawn_cross_entropy_step(
        {.hidden_ND = hidden_ND, .head_VD = head_VD, .true_label_N = there.true_label_N}, drawn, 1.0, 1.5, 0.0));
    CHECK(loss.kd == doctest::Approx(1.5 * 1.5 * wanted).epsilon(5e-6));
  }
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("draw_ids: the first id whose sum of probabilities exceeds the number, at every size of the vocabulary") {
    for (const int64_t vocab : {1, 2, 31, 127, 128, 129, 257, 1000})
      for (const double tau : {1.0, 0.5, 3.0}) {
        CAPTURE(vocab);
        CAPTURE(tau);
        const LossProblem p = make_problem(40, 6, vocab);
        const at::Tensor number_NR = numbers(40, 9),
                         id_NR = draw_ids(p.teacher_hidden_NE, p.teacher_head_VE, tau, number_NR);
        REQUIRE(id_NR.sizes() == number_NR.sizes());
        const at::Tensor sum_NV = probabilities(p, tau).cumsum(1);
        int64_t near = 0;
        for (int64_t n = 0; n < 40; ++n)
          for (int64_t r = 0; r < 9; ++r) {
            const double number = number_NR[n][r].item<double>();
            const int64_t id = id_NR[n][r].item<int64_t>();
            REQUIRE(id >= 0);
            REQUIRE(id < vocab);
            // a draw within rounding of a boundary may fall on its other side
            const double below = id == 0 ? 0 : sum_NV[n][id - 1].item<double>(), upto = sum_NV[n][id].item<double>();
            CHECK(number >= below - 1e-5);
            CHECK(number < upto + 1e-5);
            near += number < below || number >= upto;
          }
        CHECK(near <= 3);
      }
  }

  TEST_CASE("draw_ids: frequencies are probabilities; an id without probability is never drawn") {
    // one row a draw: logits log 4, log 3, -200, log 2, log 1; of 10 parts
    constexpr int64_t kRows = 20000;
    const at::Tensor head_VD = at::tensor({std::log(4.0), std::log(3.0), -200.0, std::log(2.0), 0.0}, at::kFloat)
                                   .unsqueeze(1),
                     hidden_ND = at::ones({kRows, 1});
    const at::Tensor id_N = draw_ids(hidden_ND, head_VD, 1.0, numbers(kRows, 1)).reshape({-1});
    const double expected[] = {0.4, 0.3, 0, 0.2, 0.1};
    for (int64_t id = 0; id < 5; ++id) {
      const double share = id_N.eq(id).sum().item<double>() / kRows;
      CHECK(std::abs(share - expected[id]) <= 5 * std::sqrt(expected[id] * (1 - expected[id]) / kRows));
    }
    // the ends of the range, with nothing behind the last id that counts
    const at::Tensor last_VD = at::cat({head_VD, at::full({200, 1}, -200.0)}),
                     ends_NR = at::tensor({0.0, 1 - 0x1p-53}, at::kDouble).unsqueeze(0);
    CHECK(draw_ids(hidden_ND.narrow(0, 0, 1), last_VD, 1.0, ends_NR).equal(labels({0, 4}).unsqueeze(0)));
    // at temperature 2 the shares are those of the roots: 2, 1.73, 0, 1.41, 1
    const double roots = 3 + std::sqrt(3.0) + std::sqrt(2.0);
    const at::Tensor soft_N = draw_ids(hidden_ND, head_VD, 2.0, numbers(kRows, 1)).reshape({-1});
    CHECK(soft_N.eq(0).sum().item<double>() / kRows == doctest::Approx(2 / roots).epsilon(0.05));
    CHECK(soft_N.eq(4).sum().item<double>() / kRows == doctest::Approx(1 / roots).epsilon(0.08));
  }

  TEST_CASE("draw_ids: a row's draws do not depend on its neighbours; logits that are not finite are counted") {
    const LossProblem p = make_problem(300, 12, 515);
    const at::Tensor number_NR = numbers(300, 4),
                     together = draw_ids(p.teacher_hidden_NE, p.teacher_head_VE, 1.5, number_NR);
    for (const int64_t row : {0, 1, 150, 299})
      CHECK(draw_ids(p.teacher_hidden_NE.narrow(0, row, 1), p.teacher_head_VE, 1.5, number_NR.narrow(0, row, 1))
                .equal(together.narrow(0, row, 1)));
    at::Tensor head_VE = p.teacher_head_VE.clone();
    head_VE[3].fill_(std::numeric_limits<float>::quiet_NaN());
    TopFacts facts;
    const at::Tensor id_NR = draw_ids(p.teacher_hidden_NE, head_VE, 1.0, number_NR, &facts);
    CHECK(facts.not_finite_N().sum().item<int64_t>() == 300);
    CHECK(id_NR.min().item<int64_t>() >= 0);
    CHECK(id_NR.max().item<int64_t>() < 515);
    CHECK_THROWS_AS(draw_ids(p.teacher_hidden_NE, p.teacher_head_VE, 1.0, number_NR.to(at::kFloat)), InternalError);
  }

  TEST_CASE("shares_of_draws: counts of the different ids, most drawn first, lower first among equals") {
    const TopK shares = shares_of_draws(labels({7, 3, 7, 9, 3, 7, 1, 9, -1, -1, -1, -1, 5, 5, 5, 5}).view({4, 4}));
    CHECK(shares.id_NK.equal(labels({7, 3, 9, kIgnoredLabel, 1, 3, 7, 9, kIgnoredLabel, kIgnoredLabel, kIgnoredLabel,
                                     kIgnoredLabel, 5, kIgnoredLabel, kIgnoredLabel, kIgnoredLabel})
                                 .view({4, 4})));
    CHECK(shares.logp_NK[0][0].item<double>() == doctest::Approx(std::log(0.5)));
    CHECK(shares.logp_NK[0][2].item<double>() == doctest::Approx(std::log(0.25)));
    CHECK(shares.logp_NK[1].equal(at::full({4}, std::log(0.25f))));
    CHECK(shares.logp_NK[3][0].item<float>() == 0);
    CHECK(shares.tail_logp_N.equal(at::full({4}, -std::numeric_limits<float>::infinity())));
    const TopK ordered = shares_of_ordered_draws(
        {.id_NR = labels({7, 7, 7, 3, 1, 3, 7, 9, -1, -1, -1, -1, 5, 5, 5, 5}).view({4, 4}), .log_weight_NR = {}});
    CHECK(ordered.id_NK[0].equal(labels({7, 3, kIgnoredLabel, kIgnoredLabel})));
    CHECK(ordered.logp_NK[0][0].item<double>() == doctest::Approx(std::log(0.75)));
    CHECK(ordered.id_NK.narrow(0, 1, 3).equal(shares.id_NK.narrow(0, 1, 3)));
    CHECK(ordered.logp_NK.narrow(0, 1, 3).equal(shares.logp_NK.narrow(0, 1, 3)));
    CHECK(ordered.tail_logp_N.equal(shares.tail_logp_N));
  }

  TEST_CASE("shares_of_draws: what an id's draws weigh is its share, whatever the sum") {
    const at::Tensor id_NR = labels({7, 3, 7, 9, -1, -1, -1, -1}).view({2, 4}),
                     weight_NR = at::tensor({0.5f, 2.0f, 0.5f, 4.0f, 1.0f, 1.0f, 1.0f, 1.0f}).view({2, 4});
    const TopK shares = shares_of_draws({.id_NR = id_NR, .log_weight_NR = weight_NR.log()});
    CHECK(shares.id_NK.clamp_min(-1).equal(labels({7, 3, 9, -1, -1, -1, -1, -1}).view({2, 4})));
    CHECK(error(shares.logp_NK[0].narrow(0, 0, 3).exp(), at::tensor({0.25, 0.5, 1.0}, at::kDouble)) <= 1e-6);
    CHECK(shares.tail_logp_N.equal(at::full({2}, -std::numeric_limits<float>::infinity())));
    const at::Tensor order = labels({0, 2, 1, 3});  // as a file has them
    const TopK ordered =
        shares_of_ordered_draws({.id_NR = id_NR.index_select(1, order).contiguous(),
                                 .log_weight_NR = weight_NR.log().index_select(1, order).contiguous()});
    CHECK(ordered.id_NK.equal(shares.id_NK));
    CHECK(ordered.logp_NK.equal(shares.logp_NK));
    CHECK_THROWS_AS(shares_of_draws({.id_NR = id_NR, .log_weight_NR = weight_NR.narrow(1, 0, 3)}), InternalError);
  }

  TEST_CASE("shares_of_draws, shares_of_head_and_draws: sorts, as a device takes them, say what the host's loops say") {
    const auto check_equal = [](const TopK& sorted, const TopK& looped) {
      const at::Tensor there_NK = looped.id_NK.ge(0);
      CHECK(there_NK.any().item<bool>());
      CHECK(sorted.id_NK.clamp_min(-1).equal(looped.id_NK.clamp_min(-1)));
      CHECK(error(sorted.logp_NK.masked_select(there_NK), looped.logp_NK.masked_select(there_NK).to(at::kDouble)) <=
            1e-6);
      CHECK(sorted.tail_logp_N.equal(looped.tail_logp_N));
    };
    for (const int64_t vocab : {2, 33, 1000})
      for (const int64_t draws : {1, 3, 16}) {
        CAPTURE(vocab);
        CAPTURE(draws);
        const LossProblem p = make_problem(50, 8, vocab);
        const at::Tensor number_NR = numbers(50, draws);
        WeightedDraws plain = draw_weighted_ids(p.teacher_hidden_NE, p.teacher_head_VE, 1.0, 1.0, number_NR);
        plain.id_NR[3].fill_(kIgnoredLabel);  // no teacher
        check_equal(sorted_shares_of_draws(plain), shares_of_draws(plain));
        const WeightedDraws weighted = draw_weighted_ids(p.teacher_hidden_NE, p.teacher_head_VE, 1.0, 1.3, number_NR);
        check_equal(sorted_shares_of_draws(weighted), shares_of_draws(weighted));
        HeadAndDraws both = top_k_and_draws(p.teacher_hidden_NE, p.teacher_head_VE, 2, 1.5, number_NR);
        both.top.id_NK[5].fill_(kIgnoredLabel);
        check_equal(sorted_shares_of_head_and_draws(both), shares_of_head_and_draws(both));
      }
  }

  TEST_CASE("draw_weighted_ids: the ids of the softer distribution, each with what it is of the other") {
    for (const int64_t vocab : {1, 2, 31, 128, 129, 1000})
      for (const auto& [tau, proposal] : {std::pair{1.0, 1.1}, {0.5, 3.0}, {2.0, 1.5}}) {
        CAPTURE(vocab);
        CAPTURE(tau);
        const LossProblem p = make_problem(40, 6, vocab);
        const at::Tensor number_NR = numbers(40, 9);
        const WeightedDraws draws = draw_weighted_ids(p.teacher_hidden_NE, p.teacher_head_VE, tau, proposal, number_NR);
        CHECK(draws.id_NR.equal(draw_ids(p.teacher_hidden_NE, p.teacher_head_VE, tau * proposal, number_NR)));
        const at::Tensor weight_NV = probabilities(p, tau) / probabilities(p, tau * proposal);
        CHECK(error(draws.log_weight_NR, weight_NV.log().gather(1, draws.id_NR)) <= 1e-5);
        const WeightedDraws one =
            draw_weighted_ids(p.teacher_hidden_NE.narrow(0, 7, 1), p.teacher_head_VE, tau, proposal,
                              number_NR.narrow(0, 7, 1));  // its neighbours do not count
        CHECK(one.id_NR.equal(draws.id_NR.narrow(0, 7, 1)));
        CHECK(one.log_weight_NR.equal(draws.log_weight_NR.narrow(0, 7, 1)));
        const WeightedDraws plain = draw_weighted_ids(p.teacher_hidden_NE, p.teacher_head_VE, tau, 1, number_NR);
        CHECK(plain.id_NR.equal(draw_ids(p.teacher_hidden_NE, p.teacher_head_VE, tau, number_NR)));
        CHECK(!plain.log_weight_NR.defined());
      }
  }

  TEST_CASE("weights of draws: what a softer proposal takes of the variance is not worth their bytes") {
    // a draw of v from r adds w_v (p - e_v) to the gradient of the logits, w = q / r; here the student is the teacher
    const auto variance = [](const at::Tensor& q_V, const at::Tensor& r_V) {
      return (q_V.square() / r_V * (1 - 2 * q_V + q_V.square().sum())).sum().item<double>();
    };
    const auto different = [](const at::Tensor& r_V, int64_t draws) {  // ids among so many draws, on average
      return (1 - (1 - r_V).pow(draws)).sum().item<double>();
    };
    for (const auto& [vocab, exponent] : {std::pair<int64_t, double>{512, 1.0}, {512, 1.5}, {5000, 1.2}}) {
      const at::Tensor zipf_V = at::arange(1, vocab + 1, at::kDouble).pow(-exponent), q_V = zipf_V / zipf_V.sum();
      const double plain = variance(q_V, q_V);
      CHECK(plain == doctest::Approx(1 - q_V.square().sum().item<double>()));
      double best = 1, best_of_bytes = 1e9;  // of that of a plain draw; of that of as many bytes of plain draws
      for (const double proposal : {1.02, 1.05, 1.1, 1.2, 1.5, 2.0}) {
        const at::Tensor flat_V = q_V.pow(1 / proposal), r_V = flat_V / flat_V.sum();
        const double ratio = variance(q_V, r_V) / plain, bytes = 4 * different(r_V, 16) + 15.0 / 8;
        int64_t draws = 16;  // plain ones for these bytes
        while (2 * different(q_V, draws + 1) + static_cast<double>(draws) / 8 <= bytes) ++draws;
        best = std::min(best, ratio);
        best_of_bytes = std::min(best_of_bytes, ratio * static_cast<double>(draws) / 16);
      }
      MESSAGE(vocab << " ids, exponent " << exponent << ": " << best << " of a plain draw's variance at best, "
                    << best_of_bytes << " times that of as many bytes");
      CHECK(best > 0.95);
      CHECK(best_of_bytes > 2);
    }
  }

  TEST_CASE("drawn_cross_entropy: one draw at temperature 1 is the loss of that label; a row without draws is plain") {
    const LossProblem p = make_problem(50, 8, 33);
    at::Tensor id_N = p.teacher_label_N.clone();
    id_N[1] = -1;  // of a live row
    REQUIRE(p.true_label_N[1].item<int64_t>() >= 0);
    const at::Tensor drawn_grad_VD = at::zeros_like(p.head_VD), label_grad_VD = at::zeros_like(p.head_VD);
    const ReadLoss drawn = read(drawn_cross_entropy_step(rows_of(p, drawn_grad_VD), shares_of_draws(id_N.unsqueeze(1)),
                                                         0.7, 1.0, 1e-3)),
                   label = read(mixed_cross_entropy_step(rows_of(p, label_grad_VD),
                                                         at::where(id_N.lt(0), p.true_label_N, id_N), 0.7, 1e-3));
    CHECK(drawn.kd == doctest::Approx(label.kd).epsilon(1e-6));
    CHECK(drawn.ce == doctest::Approx(label.ce).epsilon(1e-6));
    CHECK(drawn.z == doctest::Approx(label.z).epsilon(1e-6));
    CHECK(relative(drawn.hidden_grad_ND, label.hidden_grad_ND.to(at::kDouble)) <= 2e-6);
    CHECK(relative(drawn_grad_VD, label_grad_VD.to(at::kDouble)) <= 2e-6);
  }

  TEST_CASE("drawn_cross_entropy: the mean over the draws of -log p, written out in double") {
    const LossProblem p = make_problem(60, 8, 40);
    for (const double tau : {1.0, 2.5})
      for (const int64_t draws : {1, 3, 16}) {
        CAPTURE(tau);
        CAPTURE(draws);
        const at::Tensor id_NR = draw_ids(p.teacher_hidden_NE, p.teacher_head_VE, tau, numbers(60, draws));
        const at::Tensor head_grad_VD = at::zeros_like(p.head_VD);
        const ReadLoss ours =
            read(drawn_cross_entropy_step(rows_of(p, head_grad_VD), shares_of_draws(id_NR), 0.6, tau, 0.0));
        const at::Tensor hidden = p.hidden_ND.to(at::kDouble).requires_grad_(),
                         head = p.head_VD.to(at::kDouble).requires_grad_(), live_N = p.true_label_N.ge(0);
        const at::Tensor logits = hidden.mm(head.t()), log_p = (logits / tau).log_softmax(1);
        const at::Tensor kd = (-tau * tau * log_p.gather(1, id_NR).mean(1)).masked_select(live_N).sum();
        const at::Tensor ce = (-logits.log_softmax(1).gather(1, p.true_label_N.clamp_min(0).unsqueeze(1)).squeeze(1))
                                  .masked_select(live_N)
                                  .sum();
        (0.4 * ce + 0.6 * kd).backward();
        CHECK(ours.kd == doctest::Approx(kd.item<double>()).epsilon(2e-6));
        CHECK(relative(ours.hidden_grad_ND, hidden.grad()) <= 3e-6);
        CHECK(relative(head_grad_VD, head.grad()) <= 3e-6);
      }
  }
}

TEST_SUITE("unit") {
  TEST_CASE("top_k_and_draws: by hand") {
    // beside the first id the rest has shares 3/6, 0, 2/6, 1/6; six draws, each in the middle of its sixth
    const at::Tensor head_VD =
        at::tensor({std::log(4.0), std::log(3.0), -200.0, std::log(2.0), 0.0}, at::kFloat).unsqueeze(1);
    const HeadAndDraws both = top_k_and_draws(at::ones({2, 1}), head_VD, 1, 1.0, at::full({2, 6}, 0.5, at::kDouble));
    CHECK(both.top.id_NK.equal(labels({0, 0}).unsqueeze(1)));
    CHECK(both.top.logp_NK[0][0].item<double>() == doctest::Approx(std::log(0.4)));
    CHECK(both.top.tail_logp_N[0].item<double>() == doctest::Approx(std::log(0.6)));
    CHECK(both.drawn_NR.equal(labels({1, 1, 1, 3, 3, 4, 1, 1, 1, 3, 3, 4}).view({2, 6})));
    // with every id that there is anything of nothing is left to be drawn, to the ends of the range
    const at::Tensor ends_NR = at::tensor({0.0, 1 - 0x1p-53}, at::kDouble).unsqueeze(0);
    CHECK(top_k_and_draws(at::ones({1, 1}), head_VD, 5, 1.0, ends_NR).drawn_NR.eq(kIgnoredLabel).all().item<bool>());
    CHECK(top_k_and_draws(at::ones({1, 1}), head_VD, 4, 1.0, ends_NR).drawn_NR.eq(kIgnoredLabel).all().item<bool>());
    CHECK(top_k_and_draws(at::ones({1, 1}), head_VD, 3, 1.0, ends_NR).drawn_NR.equal(labels({4, 4}).unsqueeze(0)));
    CHECK_THROWS_AS(top_k_and_draws(at::ones({1, 1}), head_VD, 6, 1.0, ends_NR), InternalError);
    CHECK_THROWS_AS(top_k_and_draws(at::ones({2, 1}), head_VD, 2, 1.0, ends_NR), InternalError);
  }

  TEST_CASE(
      "top_k_and_draws: the head is top_k's, draws lie in their parts of the rest, and ids come as often as they "
      "should") {
    for (const auto& [vocab, k] : {std::pair<int64_t, int64_t>{5, 1}, {129, 8}, {515, 64}, {1000, 3}})
      for (const double tau : {1.0, 0.5, 3.0}) {
        CAPTURE(vocab);
        CAPTURE(tau);
        constexpr int64_t kRows = 40, kDraws = 9;
        const LossProblem p = make_problem(kRows, 6, vocab);
        const at::Tensor number_NR = numbers(kRows, kDraws);
        const HeadAndDraws both = top_k_and_draws(p.teacher_hidden_NE, p.teacher_head_VE, k, tau, number_NR);
        const TopK top = top_k(p.teacher_hidden_NE, p.teacher_head_VE, k, tau);
        CHECK(both.top.id_NK.equal(top.id_NK));
        CHECK(both.top.logp_NK.equal(top.logp_NK));
        CHECK(both.top.tail_logp_N.equal(top.tail_logp_N));
        const at::Tensor rest_NV = probabilities(p, tau).scatter(1, top.id_NK, 0.0),
                         share_NV = rest_NV / rest_NV.sum(1, /*keepdim=*/true), sum_NV = share_NV.cumsum(1);
        int64_t near = 0;
        for (int64_t n = 0; n < kRows; ++n) {
          for (int64_t r = 0; r < kDraws; ++r) {
            const double number = (static_cast<double>(r) + number_NR[n][r].item<double>()) / kDraws;
            const int64_t id = both.drawn_NR[n][r].item<int64_t>();
            REQUIRE(id >= 0);
            REQUIRE(id < vocab);
            REQUIRE(rest_NV[n][id].item<double>() > 0);
            const double below = id == 0 ? 0 : sum_NV[n][id - 1].item<double>(), upto = sum_NV[n][id].item<double>();
            CHECK(number >= below - 1e-5);
            CHECK(number < upto + 1e-5);
            near += number < below || number >= upto;
          }
          const at::Tensor count_V =
              at::zeros({vocab}, at::kDouble).index_add(0, both.drawn_NR[n], at::ones({kDraws}, at::kDouble));
          CHECK((count_V - kDraws * share_NV[n]).abs().max().item<double>() < 2);
        }
        CHECK(near <= 3);
        CHECK((both.drawn_NR.narrow(1, 1, kDraws - 1) - both.drawn_NR.narrow(1, 0, kDraws - 1)).min().item<int64_t>() >=
              0);
        for (const int64_t row : {0, 17, 39})  // alone as among others
          CHECK(top_k_and_draws(p.teacher_hidden_NE.narrow(0, row, 1), p.teacher_head_VE, k, tau,
                                number_NR.narrow(0, row, 1))
                    .drawn_NR.equal(both.drawn_NR.narrow(0, row, 1)));
      }
  }

  TEST_CASE("shares_of_head_and_draws: the head as it is, and each different draw with its share of the rest") {
    constexpr float kNothing = -std::numeric_limits<float>::infinity();
    const TopK top{.id_NK = labels({7, 3, 7, 3, 7, -1, -1, -1}).view({4, 2}),
                   .logp_NK = at::tensor({0.5f, 0.2f, 0.5f, 0.5f, 0.4f, 0.0f, 0.0f, 0.0f}).log().view({4, 2}),
                   .tail_logp_N = at::tensor({std::log(0.3f), kNothing, std::log(0.6f), kNothing})};
    const TopK shares = shares_of_head_and_draws(
        {.top = top, .drawn_NR = labels({1, 1, 4, -1, -1, -1, 9, 9, 9, -1, -1, -1}).view({4, 3})});
    CHECK(shares.id_NK.clamp_min(-1).equal(
        labels({7, 3, 1, 4, -1, 7, 3, -1, -1, -1, 7, -1, 9, -1, -1, -1, -1, -1, -1, -1}).view({4, 5})));
    const at::Tensor share_NK = shares.logp_NK.exp();
    CHECK(error(share_NK[0].narrow(0, 0, 4), at::tensor({0.5, 0.2, 0.2, 0.1}, at::kDouble)) <= 1e-6);
    CHECK(error(share_NK[1].narrow(0, 0, 2), at::tensor({0.5, 0.5}, at::kDouble)) <= 1e-6);
    CHECK(share_NK[2][2].item<double>() == doctest::Approx(0.6));
    CHECK(shares.tail_logp_N.equal(at::full({4}, kNothing)));
    CHECK_THROWS_AS(shares_of_head_and_draws(
                        {.top = top, .drawn_NR = labels({1, 4, 1, -1, -1, -1, 9, 9, 9, -1, -1, -1}).view({4, 3})}),
                    InternalError);
  }
}

TEST_SUITE("parity") {
  TEST_CASE("head and draws: over every id that could be drawn the gradient is that of the divergence, exactly") {
    constexpr int64_t kVocab = 19;
    const LossProblem p = make_problem(12, 6, kVocab);
    for (const auto& [k, tau] : {std::pair<int64_t, double>{1, 1.0}, {4, 2.0}, {18, 1.0}}) {
      CAPTURE(k);
      const TopK top = top_k(p.teacher_hidden_NE, p.teacher_head_VE, k, tau);
      const at::Tensor rest_NV = probabilities(p, tau).scatter(1, top.id_NK, 0.0),
                       share_NV = rest_NV / rest_NV.sum(1, /*keepdim=*/true);
      at::Tensor mean_ND = at::zeros({12, 6}, at::kDouble);
      double kd = 0;
      for (int64_t id = 0; id < kVocab; ++id)
        for (int64_t row = 0; row < 12; ++row) {
          const double share = share_NV[row][id].item<double>();
          if (share == 0) continue;
          HeadRows one = rows_of(p, at::zeros_like(p.head_VD));
          one.hidden_ND = p.hidden_ND.narrow(0, row, 1);
          one.true_label_N = p.true_label_N.narrow(0, row, 1).contiguous();
          const TopK shares = shares_of_head_and_draws({.top = {.id_NK = top.id_NK.narrow(0, row, 1),
                                                                .logp_NK = top.logp_NK.narrow(0, row, 1),
                                                                .tail_logp_N = top.tail_logp_N.narrow(0, row, 1)},
                                                        .drawn_NR = at::full({1, 1}, id, at::kLong)});
          const ReadLoss loss = read(drawn_cross_entropy_step(one, shares, 1.0, tau, 0.0));
          mean_ND[row] += share * loss.hidden_grad_ND[0].to(at::kDouble);
          kd += share * loss.kd;
        }
      const ReadLoss dense =
          read(distillation_step(rows_of(p, at::zeros_like(p.head_VD)), p.teacher_hidden_NE, p.teacher_head_VE,
                                 {.loss = "kl", .teacher_weight = 1, .temperature = tau}));
      CHECK(relative(mean_ND, dense.hidden_grad_ND.to(at::kDouble)) <= 5e-6);
      const at::Tensor q_NV = probabilities(p, tau);
      const double entropy = -(q_NV * q_NV.log()).sum(1).masked_select(p.true_label_N.ge(0)).sum().item<double>();
      CHECK(kd == doctest::Approx(dense.kd + tau * tau * entropy).epsilon(5e-6));
    }
  }

  TEST_CASE(
      "head and draws: sets of draws one after the other meet the divergence in their mean, and vary less than draws "
      "of all") {
    constexpr int64_t kSets = 400, kDraws = 4, kHead = 3;
    const LossProblem p = make_problem(10, 5, 50);
    const double tau = 1.5;
    const auto gradient = [&](const TopK& shares) {
      return drawn_cross_entropy_step(rows_of(p, at::zeros_like(p.head_VD)), shares, 1.0, tau, 0.0)
          .hidden_grad_ND.to(at::kDouble);
    };
    at::Tensor sum_ND = at::zeros({10, 5}, at::kDouble), squares_ND = at::zeros({10, 5}, at::kDouble);
    const at::Tensor dense_ND =
        distillation_step(rows_of(p, at::zeros_like(p.head_VD)), p.teacher_hidden_NE, p.teacher_head_VE,
                          {.loss = "kl", .teacher_weight = 1, .temperature = tau})
            .hidden_grad_ND.to(at::kDouble);
    double of_all = 0, of_rest = 0;
    for (int64_t set = 0; set < kSets; ++set) {
      const at::Tensor number_NR = numbers(10, kDraws, static_cast<uint64_t>(1 + set));
      const at::Tensor one = gradient(
          shares_of_head_and_draws(top_k_and_draws(p.teacher_hidden_NE, p.teacher_head_VE, kHead, tau, number_NR)));
      sum_ND += one;
      squares_ND += one.square();
      of_rest += (one - dense_ND).square().sum().item<double>();
      of_all += (gradient(shares_of_draws(draw_ids(p.teacher_hidden_NE, p.teacher_head_VE, tau, number_NR))) - dense_ND)
                    .square()
                    .sum()
                    .item<double>();
    }
    const at::Tensor mean_ND = sum_ND / kSets,
                     error_ND = ((squares_ND / kSets - mean_ND.square()).clamp_min(0) / (kSets - 1)).sqrt();
    const at::Tensor z_ND = (mean_ND - dense_ND) / error_ND.clamp_min(1e-12);
    const at::Tensor live_ND = p.true_label_N.ge(0).unsqueeze(1).expand_as(z_ND);
    const at::Tensor z = z_ND.masked_select(live_ND);
    CHECK(z.abs().max().item<double>() <= 5);  // 40 numbers of spread 1
    CHECK(z.square().mean().item<double>() <= 2);
    CHECK(z.square().mean().item<double>() >= 0.3);
    MESSAGE("squared error of the gradient: " << of_rest / of_all << " of that of as many draws without a head");
    CHECK(of_rest < 0.5 * of_all);
  }

  TEST_CASE("drawn_cross_entropy: over every id that could be drawn the gradient is that of the divergence, exactly") {
    constexpr int64_t kVocab = 19;
    const LossProblem p = make_problem(12, 6, kVocab);
    for (const double tau : {1.0, 2.0}) {
      CAPTURE(tau);
      const at::Tensor q_NV = probabilities(p, tau), live_N = p.true_label_N.ge(0);
      at::Tensor mean_ND = at::zeros({12, 6}, at::kDouble);
      double kd = 0;
      for (int64_t id = 0; id < kVocab; ++id) {
        const TopK shares = shares_of_draws(at::full({12, 1}, id, at::kLong));
        mean_ND += q_NV.select(1, id).unsqueeze(1) *
                   drawn_cross_entropy_step(rows_of(p, at::zeros_like(p.head_VD)), shares, 1.0, tau, 0.0)
                       .hidden_grad_ND.to(at::kDouble);
        for (int64_t row = 0; row < 12; ++row) {
          HeadRows one = rows_of(p);
          one.hidden_ND = p.hidden_ND.narrow(0, row, 1);
          one.true_label_N = p.true_label_N.narrow(0, row, 1).contiguous();
          kd += q_NV[row][id].item<double>() *
                read(drawn_cross_entropy_step(one, shares_of_draws(at::full({1, 1}, id, at::kLong)), 1.0, tau, 0.0)).kd;
        }
      }
      const ReadLoss dense =
          read(distillation_step(rows_of(p, at::zeros_like(p.head_VD)), p.teacher_hidden_NE, p.teacher_head_VE,
                                 {.loss = "kl", .teacher_weight = 1, .temperature = tau}));
      CHECK(relative(mean_ND, dense.hidden_grad_ND.to(at::kDouble)) <= 5e-6);
      // the cross-entropy is the divergence and the teacher's entropy
      const double entropy = -(q_NV * q_NV.log()).sum(1).masked_select(live_N).sum().item<double>();
      CHECK(kd == doctest::Approx(dense.kd + tau * tau * entropy).epsilon(5e-6));
    }
  }

  TEST_CASE("drawn_cross_entropy: the same where they are drawn from another distribution, by their weights") {
    constexpr int64_t kVocab = 19;
    const LossProblem p = make_problem(12, 6, kVocab);
    for (const auto& [tau, proposal] : {std::pair{1.0, 1.3}, {2.0, 4.0}, {0.7, 0.8}}) {
      CAPTURE(tau);
      const at::Tensor q_NV = probabilities(p, tau), r_NV = probabilities(p, tau * proposal),
                       log_weight_NV = (q_NV / r_NV).log().to(at::kFloat);
      at::Tensor mean_ND = at::zeros({12, 6}, at::kDouble);
      for (int64_t id = 0; id < kVocab; ++id) {
        const TopK shares = shares_of_draws(
            {.id_NR = at::full({12, 1}, id, at::kLong), .log_weight_NR = log_weight_NV.narrow(1, id, 1).contiguous()});
        mean_ND += r_NV.select(1, id).unsqueeze(1) *
                   drawn_cross_entropy_step(rows_of(p, at::zeros_like(p.head_VD)), shares, 1.0, tau, 0.0)
                       .hidden_grad_ND.to(at::kDouble);
      }
      const ReadLoss dense =
          read(distillation_step(rows_of(p, at::zeros_like(p.head_VD)), p.teacher_hidden_NE, p.teacher_head_VE,
                                 {.loss = "kl", .teacher_weight = 1, .temperature = tau}));
      CHECK(relative(mean_ND, dense.hidden_grad_ND.to(at::kDouble)) <= 5e-6);
    }
  }

  TEST_CASE("drawn_cross_entropy: gradients of one set of draws after the other meet the divergence's in their mean") {
    for (const double proposal : {1.0, 1.4}) {
      CAPTURE(proposal);
      constexpr int64_t kSets = 400, kDraws = 4;
      const LossProblem p = make_problem(10, 5, 50);
      const double tau = 1.5;
      at::Tensor sum_ND = at::zeros({10, 5}, at::kDouble), squares_ND = at::zeros({10, 5}, at::kDouble);
      for (int64_t set = 0; set < kSets; ++set) {
        const TopK shares = shares_of_draws(draw_weighted_ids(p.teacher_hidden_NE, p.teacher_head_VE, tau, proposal,
                                                              numbers(10, kDraws, static_cast<uint64_t>(1 + set))));
        const at::Tensor gradient =
            drawn_cross_entropy_step(rows_of(p, at::zeros_like(p.head_VD)), shares, 1.0, tau, 0.0)
                .hidden_grad_ND.to(at::kDouble);
        sum_ND += gradient;
        squares_ND += gradient.square();
      }
      const at::Tensor dense_ND =
          distillation_step(rows_of(p, at::zeros_like(p.head_VD)), p.teacher_hidden_NE, p.teacher_head_VE,
                            {.loss = "kl", .teacher_weight = 1, .temperature = tau})
              .hidden_grad_ND.to(at::kDouble);
      const at::Tensor mean_ND = sum_ND / kSets,
                       error_ND = ((squares_ND / kSets - mean_ND.square()).clamp_min(0) / (kSets - 1)).sqrt();
      const at::Tensor z_ND = (mean_ND - dense_ND) / error_ND.clamp_min(1e-12);
      const at::Tensor live_ND = p.true_label_N.ge(0).unsqueeze(1).expand_as(z_ND);
      const at::Tensor z = z_ND.masked_select(live_ND);
      CHECK(z.abs().max().item<double>() <= 5);  // 40 numbers of spread 1
      CHECK(z.square().mean().item<double>() <= 2);
      CHECK(z.square().mean().item<double>() >= 0.3);  // the error is one, not a bound far above it
      CHECK(mean_ND.masked_select(live_ND.logical_not()).abs().max().item<double>() == 0);
    }
  }
}

TEST_SUITE("parity") {
  TEST_CASE("draw_ids, top_k_and_draws and the loss over shares, by kernels as by loops") {
    on_each(host_placements(), check_draws);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("draw_ids, top_k_and_draws and the loss over shares: on a device") {
    on_each(device_placements(), check_draws);
  }

  TEST_CASE("shares of draws are counted on a device as on the host, and not waited for") {
    on_each({device_placements().front()}, [](const OpPlacement& on) {
      for (const int64_t draws : {1, 2, 3, 8, 64}) {
        CAPTURE(draws);
        const at::Tensor id_NR = (at::arange(50 * draws) * 7919).remainder(97).remainder(11).view({50, draws});
        id_NR[3].fill_(kIgnoredLabel);
        const WeightedDraws weighted{.id_NR = id_NR, .log_weight_NR = id_NR.to(at::kFloat).mul(0.37).sin()};
        const HeadAndDraws both{.top = {.id_NK = at::arange(100).view({50, 2}),
                                        .logp_NK = at::full({50, 2}, -1.0, at::kFloat),
                                        .tail_logp_N = at::full({50}, -2.0, at::kFloat)},
                                .drawn_NR = std::get<0>(id_NR.sort(1))};
        both.top.id_NK[5].fill_(kIgnoredLabel);
        WeightedDraws there = weighted;
        HeadAndDraws both_there = both;
        send({&there.id_NR, &there.log_weight_NR, &both_there.top.id_NK, &both_there.top.logp_NK,
              &both_there.top.tail_logp_N, &both_there.drawn_NR},
             on.device);
        std::vector<TopK> got;
        {
          const NoDeviceWaits no_waits;
          got = {shares_of_draws(there), shares_of_draws(there.id_NR), shares_of_head_and_draws(both_there)};
        }
        const std::vector<TopK> wanted = {shares_of_draws(weighted), shares_of_draws(id_NR),
                                          shares_of_head_and_draws(both)};
        for (size_t i = 0; i < wanted.size(); ++i) {
          CHECK(at::equal(got[i].id_NK.cpu(), wanted[i].id_NK));
          CHECK(at::allclose(got[i].logp_NK.cpu(), wanted[i].logp_NK, 1e-6, 1e-6));
          CHECK(at::equal(got[i].tail_logp_N.cpu(), wanted[i].tail_logp_N));
        }
      }
    });
  }
}
