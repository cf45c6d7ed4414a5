#include "pruning/soft_masks.h"

#include "pruning/mask_health.h"

#include "tests/pruning/tiny.h"  // before any CHECK

#include <cmath>
#include <limits>

#include "src/base/errors.h"
#include "src/tensors/ops.h"

using namespace coppice;
using tiny::largest;
using tiny::soft_mask;

TEST_SUITE("unit") {
  TEST_CASE("mask_schedule: k ramps, epsilon anneals geometrically, top comes in the last tenth") {
    const MaskOptions options;  // ramp 0.2, epsilon 1 -> 0.05 at 0.9
    MaskSchedule at = mask_schedule(options, 0.0, 768, 256);
    CHECK(at.k == 768);
    CHECK(at.epsilon == 1.0);
    CHECK_FALSE(at.top);
    at = mask_schedule(options, 0.1, 768, 256);
    CHECK(at.k == 512);
    CHECK(at.epsilon == 1.0);
    at = mask_schedule(options, 0.2, 768, 256);
    CHECK(at.k == 256);
    CHECK(at.epsilon == 1.0);
    at = mask_schedule(options, 0.55, 768, 256);  // half-way: the geometric mean
    CHECK(at.k == 256);
    CHECK(at.epsilon == doctest::Approx(std::sqrt(0.05)).epsilon(1e-12));
    CHECK_FALSE(mask_schedule(options, 0.899, 768, 256).top);
    at = mask_schedule(options, 0.9, 768, 256);
    CHECK(at.epsilon == doctest::Approx(0.05).epsilon(1e-12));
    CHECK(at.top);
    CHECK(mask_schedule(options, 1.0, 768, 256).epsilon == at.epsilon);
  }

  TEST_CASE("mask_schedule: forms, and ramps of no length") {
    MaskOptions options;
    options.mask_form = "plain";
    CHECK_FALSE(mask_schedule(options, 1.0, 8, 2).top);
    options.mask_form = "top";
    CHECK(mask_schedule(options, 0.0, 8, 2).top);
    options.k_ramp = 0;
    CHECK(mask_schedule(options, 0.0, 8, 2).k == 2);
    options.anneal_end = 0;
    CHECK(mask_schedule(options, 0.0, 8, 2).epsilon == doctest::Approx(0.05));
    options.k_ramp = options.anneal_end = 1;
    CHECK(mask_schedule(options, 0.5, 8, 2).k == 5);
    CHECK(mask_schedule(options, 0.5, 8, 2).epsilon == 1.0);
  }

  TEST_CASE("check_mask_options: names the key, what came and what was expected") {
    const auto message = [](auto&& change) -> std::string {
      MaskOptions options;
      change(options);
      try {
        check_mask_options(options, [](const char* key) { return std::string("a.toml:3 ") + key; });
      } catch (const UserError& error) {
        CHECK(error.code() == ExitCode::recipe);
        return error.what();
      }
      return "";
    };
    CHECK(message([](MaskOptions&) {}).empty());
    CHECK(message([](MaskOptions& o) {
            o.mask_form = "tops";
          }).find("mask_form: got 'tops', expected plain, top, plain_then_top; did you mean 'top'?") !=
          std::string::npos);
    CHECK(message([](MaskOptions& o) { o.k_ramp = 1.5; }).find("k_ramp: got 1.5") != std::string::npos);
    CHECK(message([](MaskOptions& o) { o.anneal_end = 0.1; }).find("anneal_end: got 0.1") != std::string::npos);
    CHECK(message([](MaskOptions& o) { o.final_top_k_epsilon = 0; }).find("final_top_k_epsilon: got 0") !=
          std::string::npos);
    CHECK(message([](MaskOptions& o) { o.score_lr = std::nan(""); }).find("score_lr: got nan") != std::string::npos);
    CHECK(message([](MaskOptions& o) { o.score_lr = std::nan(""); }).find("a.toml:3") != std::string::npos);
    CHECK(message([](MaskOptions& o) { o.score_lr = INFINITY; }).find("score_lr: got inf, expected a finite number") !=
          std::string::npos);
    CHECK(message([](MaskOptions& o) { o.multiplier_lr = INFINITY; }).find("multiplier_lr: got inf") !=
          std::string::npos);
  }

  TEST_CASE("initial_scores: a function of the seed, of the size asked for, layers differ") {
    const at::Tensor raw_LF = initial_scores(3, 4000, 0.01, 5);
    CHECK(at::equal(raw_LF, initial_scores(3, 4000, 0.01, 5)));
    CHECK_FALSE(at::equal(raw_LF, initial_scores(3, 4000, 0.01, 6)));
    CHECK_FALSE(at::equal(raw_LF[0], raw_LF[1]));
    CHECK(at::equal(raw_LF[0].narrow(0, 0, 100), initial_scores(1, 100, 0.01, 5)[0]));
    CHECK(raw_LF.std().item<double>() == doctest::Approx(0.01).epsilon(0.05));
    CHECK(std::abs(raw_LF.mean().item<double>()) < 1e-3);
  }

  TEST_CASE("hard_top_k: equal scores go to the lower index") {
    const at::Tensor scores_LF = at::tensor({1.f, 3.f, 3.f, 3.f, 0.f, 2.f, 2.f, 2.f, 2.f, -1.f}).view({2, 5});
    CHECK(at::equal(hard_top_k(scores_LF, 2),
                    at::tensor({0.f, 1.f, 1.f, 0.f, 0.f, 1.f, 1.f, 0.f, 0.f, 0.f}).view({2, 5})));
    CHECK(at::equal(hard_top_k(at::zeros({1, 1000}), 300).nonzero().select(1, 1), at::arange(300, at::kLong)));
    CHECK(hard_top_k(scores_LF, 0).sum().item<float>() == 0);
    CHECK(at::equal(hard_top_k(scores_LF, 5), at::ones({2, 5})));
  }

  TEST_CASE("soft_mask: k of all channels is one everywhere, whatever the scores") {
    const at::Tensor raw_LF = initial_scores(2, 33, 0.01, 1);
    CHECK(at::equal(soft_mask(raw_LF, {.k = 33, .epsilon = 1.0, .top = false}, 11), at::ones({2, 33})));
    CHECK(at::equal(soft_mask(raw_LF, {.k = 33, .epsilon = 1.0, .top = true}, 11),
                    at::ones({2, 33})));  // the hard set follows k while it ramps
  }

  TEST_CASE("soft_mask: sums to k; under top, only the K best raw scores remain and keep their value") {
    const at::Tensor raw_LF = initial_scores(3, 96, 0.01, 2);
    const at::Tensor plain_LF = soft_mask(raw_LF, {.k = 32, .epsilon = 0.3, .top = false}, 32);
    CHECK(largest(plain_LF.to(at::kDouble).sum(1) - 32.0) < 1e-4);
    const at::Tensor top_LF = soft_mask(raw_LF, {.k = 32, .epsilon = 0.3, .top = true}, 32);
    CHECK(at::equal(top_LF, plain_LF * hard_top_k(raw_LF, 32)));
    CHECK(at::equal(top_LF.ne(0).sum(1), at::full({3}, 32, at::kLong)));
  }

  TEST_CASE("mask_health: worked out by hand") {
    // K = 2 of 4, k = 2. Layer 0: binary. Layer 1: (1, 0.5, 0.5, 0).
    const at::Tensor raw_LF = at::tensor({4.f, 3.f, 2.f, 1.f, 4.f, 3.f, 2.f, 1.f}).view({2, 4});
    const at::Tensor soft_LF = at::tensor({1.f, 1.f, 0.f, 0.f, 1.f, 0.5f, 0.5f, 0.f}).view({2, 4});
    const MaskHealth health = mask_health(soft_LF, raw_LF, 2.0, 2);
    CHECK(health.sum_error == 0);
    CHECK(health.layer_sharpness == std::vector<double>{1.0, 0.75});
    CHECK(health.sharpness == 0.875);
    CHECK(health.saturated_share == 0.75);                          // (2/2 + 1/2)/2
    CHECK(health.outside_share == 0.125);                           // (0 + 0.5/2)/2
    CHECK(health.free_share == 0.25);                               // (0 + 2/4)/2
    CHECK(health.entropy == doctest::Approx(std::log(2.0) / 4.0));  // 2 * 0.5 ln 2 over L K = 4
    CHECK(health.layer_sparsity == std::vector<double>{0.5, 0.5});
    CHECK(health.sparsity == 0.5);
    CHECK(health.score_std == doctest::Approx(std::sqrt(1.25)));  // population
    CHECK(mask_health(soft_LF, raw_LF, 2.5, 2).sum_error == doctest::Approx(0.2));
  }

  TEST_CASE("mask_health: what is not finite stays visible") {
    at::Tensor soft_LF = at::full({2, 4}, 0.5f);
    soft_LF[1][2] = std::numeric_limits<float>::quiet_NaN();
    const MaskHealth health = mask_health(soft_LF, at::arange(8, at::kFloat).view({2, 4}), 2.0, 2);
    CHECK(std::isnan(health.sum_error));
    CHECK_THROWS_WITH_AS(mask_collapse(health, 0.1, 4), "layer 1: the FFN mask is not finite", DivergedError);
    CHECK_THROWS_WITH_AS(mask_collapse(health, 0.1, 4, CutAxis::heads), "layer 1: the mask of heads is not finite",
                         DivergedError);
    CHECK_THROWS_WITH_AS(mask_collapse(health, 0.1, 4, CutAxis::layers), "the mask of layers is not finite",
                         DivergedError);
  }

  TEST_CASE("mask_collapse: an undecided mask is fine early and named late") {
    const at::Tensor raw_LF = initial_scores(2, 30, 0.01, 3);
    const MaskHealth flat = mask_health(at::full({2, 30}, 1.f / 3), raw_LF, 10, 10);
    CHECK(mask_collapse(flat, 0.5, 30).empty());
    CHECK(mask_collapse(flat, 0.6, 30)
              .find("layer 0: the FFN mask has not decided after 60 % of its steps: sharpness 0.333") !=
          std::string::npos);
    CHECK(mask_collapse(mask_health(hard_top_k(raw_LF, 10), raw_LF, 10, 10), 1.0, 30).empty());
    CHECK(mask_collapse(mask_health(at::ones({2, 30}), raw_LF, 30, 30), 1.0, 30).empty());  // nothing to decide
  }

  TEST_CASE("mask_collapse: a layer that is hardly cut need not be binary to have decided") {
    const at::Tensor raw_LF = at::arange(20, at::kFloat).view({1, 20});
    at::Tensor soft_LF = at::ones({1, 20});
    soft_LF[0][0] = 0.01f;  // the one to go, nearly gone
    soft_LF[0][1] = 0.99f;
    CHECK(mask_collapse(mask_health(soft_LF, raw_LF, 19, 19), 1.0, 20).empty());
    CHECK(mask_collapse(mask_health(at::full({1, 20}, 0.95f), raw_LF, 19, 19), 1.0, 20)
              .find("sharpness 0.950, an undecided mask has 0.950") != std::string::npos);
  }

  TEST_CASE("cut_collapse and early_decision: only where they should speak") {
    CHECK(cut_collapse(4.1, 4.0, 0.5).empty());
    CHECK(cut_collapse(3.9, 4.0, 0.6).empty());
    CHECK(cut_collapse(4.1, 4.0, 0.6).find("held-out loss 4.1000 against 4.0000") != std::string::npos);
    CHECK(cut_collapse(4.0, 4.0, 0.6) != "");
    CHECK(early_decision(0.0, 0.2).find("20 %") != std::string::npos);
    CHECK(early_decision(0.0, 30.0 / 100.0).find("30 %") != std::string::npos);
    CHECK(early_decision(0.01, 0.2).empty());
    CHECK(early_decision(0.0, 0.4).empty());
  }

  TEST_CASE("mask_churn: share of kept channels that left") {
    const at::Tensor before_LF = at::tensor({1.f, 1.f, 0.f, 0.f, 1.f, 1.f, 0.f, 0.f}).view({2, 4});
    const at::Tensor after_LF = at::tensor({1.f, 0.f, 1.f, 0.f, 1.f, 1.f, 0.f, 0.f}).view({2, 4});
    CHECK(mask_churn(before_LF, before_LF) == 0.0);
    CHECK(mask_churn(before_LF, after_LF) == 0.25);
    CHECK(mask_churn(before_LF, 1 - before_LF) == 1.0);
  }
}

TEST_SUITE("golden") {
  TEST_CASE("standardise_scores and soft_mask against soft_top_k.json") {
    const Json golden = tiny::golden("soft_top_k.json");
    for (const Json& row : golden.at("standardised").at("cases")) {
      const double k = row.at("k").get<double>(), epsilon = row.at("eps").get<double>();
      CHECK(largest(standardise_scores(tiny::vector_of(row.at("raw")).unsqueeze(0)) - tiny::vector_of(row.at("s"))) <
            1e-12);

      at::Tensor raw_LF = tiny::vector_of(row.at("raw"), at::kFloat).unsqueeze(0).requires_grad_(true);
      const at::Tensor soft_LF = soft_mask(raw_LF, {.k = k, .epsilon = epsilon, .top = false}, static_cast<int64_t>(k));
      CHECK(largest(soft_LF.detach().to(at::kDouble) - tiny::vector_of(row.at("lambda"))) < 2e-6);

      (soft_LF * tiny::vector_of(row.at("g"), at::kFloat)).sum().backward();
      const at::Tensor expected = tiny::vector_of(row.at("d_raw"));
      CHECK(largest(raw_LF.grad().to(at::kDouble) - expected) < 1e-5 * (1.0 + largest(expected)));
    }
  }
}

TEST_SUITE("grad") {
  TEST_CASE("standardise_scores: central differences in double") {
    at::Tensor raw_LF = initial_scores(2, 7, 0.01, 4).to(at::kDouble);
    const at::Tensor g_LF = at::linspace(-1, 2, 14, at::kDouble).view({2, 7}).square();
    at::Tensor leaf = raw_LF.clone().requires_grad_(true);
    (standardise_scores(leaf) * g_LF).sum().backward();
    const auto loss = [&](const at::Tensor& raw) { return (standardise_scores(raw) * g_LF).sum().item<double>(); };
    const double scale = largest(leaf.grad());
    for (int64_t i = 0; i < 14; ++i) {
      at::Tensor up = raw_LF.clone(), down = raw_LF.clone();
      up.view(-1)[i] += 1e-7;
      down.view(-1)[i] -= 1e-7;
      CHECK(std::abs((loss(up) - loss(down)) / 2e-7 - leaf.grad().view(-1)[i].item<double>()) < 1e-5 * scale);
    }
  }

  TEST_CASE("standardise_scores: equal scores give zeros and a finite gradient") {
    at::Tensor raw_LF = at::full({2, 5}, 0.25f).requires_grad_(true);
    const at::Tensor s_LF = standardise_scores(raw_LF);
    CHECK(at::equal(s_LF.detach(), at::zeros({2, 5})));
    (s_LF * at::arange(5, at::kFloat)).sum().backward();
    CHECK(raw_LF.grad().isfinite().all().item<bool>());
  }

  TEST_CASE("soft_mask: under top the gradient still reaches the kept channels, and sums to zero over a row") {
    at::Tensor raw_LF = initial_scores(2, 40, 0.01, 8).requires_grad_(true);
    const at::Tensor g_LF = at::linspace(-3, 3, 80, at::kFloat).view({2, 40});
    (soft_mask(raw_LF, {.k = 13, .epsilon = 0.5, .top = true}, 13) * g_LF).sum().backward();
    CHECK(largest(raw_LF.grad()) > 0);
    CHECK(largest(raw_LF.grad().sum(1)) < 1e-4 * largest(raw_LF.grad()));
  }

  TEST_CASE("soft_mask: the decoder's logits carry a gradient to the scores, equal to central differences") {
    const Model model = tiny::model();
    const DecoderInput input = tiny::input();
    at::Tensor raw_LF = initial_scores(2, 24, 0.01, 9).requires_grad_(true);
    const MaskSchedule schedule{.k = 8, .epsilon = 0.7, .top = false};
    const auto loss = [&](const at::Tensor& raw) {
      return decoder_logits(model, input, masks_on(CutAxis::ffn, soft_mask(raw, schedule, 8), model.config))
          .square()
          .mean();
    };
    loss(raw_LF).backward();
    // Along the gradient itself: one central difference tests every entry at once.
    const at::Tensor direction = raw_LF.grad() / raw_LF.grad().norm();
    const double h = 2e-4;
    const double slope =
        (loss(raw_LF.detach() + h * direction).item<double>() - loss(raw_LF.detach() - h * direction).item<double>()) /
        (2 * h);
    CHECK(slope == doctest::Approx(raw_LF.grad().norm().item<double>()).epsilon(0.02));
  }
}
