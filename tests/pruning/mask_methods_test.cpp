#include "pruning/mask_methods.h"

#include "tests/pruning/tiny.h"  // before any CHECK

#include <cmath>

#include "pruning/mask_health.h"
#include "pruning/soft_masks.h"
#include "src/base/errors.h"

using namespace coppice;
using tiny::largest;
using tiny::soft_mask;

namespace {

constexpr int64_t kLayers = 2, kChannels = 24, kKept = 8, kSteps = 20;

MaskTask task_of(const std::string& method) {
  MaskTask task{.options = {},
                .num_layers = kLayers,
                .num_channels = kChannels,
                .budget = {.num_kept = kKept},
                .warmup_steps = 2,
                .num_steps = kSteps,
                .seed = 3,
                .start_LF = {}};
  task.options.mask_method = method;
  return task;
}

std::unique_ptr<LearnedMask> make(const MaskTask& task) {
  return find_mask_method(task.options.mask_method, "").make(task);
}

MaskMoment moment_of(const MaskTask& task, int64_t step) {
  const double p = static_cast<double>(step) / static_cast<double>(task.num_steps);
  return {.step = step, .schedule = mask_schedule(task.options, p, task.num_channels, task.budget.num_kept)};
}

/// Steps against a loss whose gradient with respect to the mask pulls towards channels of its own.
void learn(LearnedMask& mask, int64_t from, int64_t to) {
  for (int64_t step = from; step < to; ++step) {
    const MaskMoment moment = moment_of(mask.task(), step);
    const at::Tensor leaf = mask.scores();
    leaf.set_requires_grad(true);
    const StepMask now = mask.training_mask(moment);
    const at::Tensor mask_grad_LF =
        now.mask_LF.detach() * 0.1 -
        at::sin(at::arange(kLayers * kChannels, at::kFloat) * 1.7f).view({kLayers, kChannels});
    const at::Tensor grad_LF = mask.score_gradient(now.mask_LF, mask_grad_LF, mask.penalty(moment));
    leaf.set_requires_grad(false);
    mask.step(grad_LF, moment);
  }
}

/// The generator of the golden files: rules stand in them.
struct Lcg {
  uint64_t state;
  double uniform() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state >> 11) * 0x1p-53;
  }
  double bell() {
    const double a = uniform(), b = uniform(), c = uniform(), d = uniform();
    return ((a + b) + (c + d) - 2.0) * 1.7320508075688772;
  }
};

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("mask methods: found by name, the nearest is named; each gives finite masks of the right shape in [0, 1]") {
    CHECK_THROWS_WITH_AS(find_mask_method("hard_concret", "a.toml:4"),
                         doctest::Contains("a.toml:4: mask_method: got 'hard_concret'"), UserError);
    for (const MaskMethodRow& row : mask_method_table()) {
      INFO(row.name);
      const auto mask = make(task_of(row.name));
      learn(*mask, 0, kSteps);
      const StepMask last = mask->evaluation_mask(moment_of(mask->task(), kSteps));
      CHECK(last.mask_LF.sizes() == at::IntArrayRef({kLayers, kChannels}));
      CHECK(last.mask_LF.isfinite().all().item<bool>());
      CHECK(last.mask_LF.ge(0).all().item<bool>());
      CHECK(last.mask_LF.le(1.0f + 1e-6f).all().item<bool>());
      CHECK_FALSE(last.mask_LF.requires_grad());
      CHECK(largest(mask->top_set(kKept).sum(1) - static_cast<double>(kKept)) == 0);
      CHECK(at::equal(hard_top_k(mask->scores(), kKept), mask->top_set(kKept)));
    }
  }

  TEST_CASE(
      "mask methods: those of scores keep every channel at step 0 and those that promise it sum to k at every step") {
    for (const MaskMethodRow& row : mask_method_table()) {
      INFO(row.name);
      const auto mask = make(task_of(row.name));
      if (mask->evaluates_as_trained())
        CHECK(at::equal(mask->training_mask(moment_of(mask->task(), 0)).mask_LF, at::ones({kLayers, kChannels})));
      for (int64_t step = 0; row.meets_budget && step <= kSteps; ++step) {
        const MaskMoment moment = moment_of(mask->task(), step);
        const StepMask now = mask->evaluation_mask(moment);  // the plain sum holds under every form
        CHECK(mask_health({.soft_LF = now.plain_LF,
                           .raw_LF = mask->scores(),
                           .hard_LF = mask->top_set(moment.schedule.k),
                           .k = moment.schedule.k})
                  .sum_error < 1e-6);
        if (step < kSteps) learn(*mask, step, step + 1);
      }
    }
  }

  TEST_CASE("mask methods: resuming from state() repeats the undisturbed run bit for bit") {
    for (const MaskMethodRow& row : mask_method_table()) {
      INFO(row.name);
      const auto whole = make(task_of(row.name)), first = make(task_of(row.name)), second = make(task_of(row.name));
      learn(*whole, 0, kSteps);
      learn(*first, 0, 7);
      const auto saved = first->state(), into = second->state();
      REQUIRE(saved.size() == into.size());
      for (size_t i = 0; i < saved.size(); ++i) {
        CHECK(saved[i].first == into[i].first);
        at::Tensor target = into[i].second;
        target.copy_(saved[i].second);
      }
      second->restore(first->t());
      learn(*second, 7, kSteps);
      const auto expected = whole->state(), got = second->state();
      for (size_t i = 0; i < expected.size(); ++i)
        CHECK_MESSAGE(at::equal(expected[i].second, got[i].second), expected[i].first);
      CHECK(at::equal(whole->training_mask(moment_of(whole->task(), kSteps)).mask_LF,
                      second->training_mask(moment_of(whole->task(), kSteps)).mask_LF));
    }
  }

  TEST_CASE("soft_top_k: the method is soft_mask of its scores; a one-shot start ranks as that score") {
    MaskTask task = task_of("soft_top_k");
    const auto mask = make(task);
    learn(*mask, 0, 12);
    for (const int64_t step : {3, 12, 19}) {
      const MaskMoment moment = moment_of(task, step);
      CHECK(at::equal(mask->evaluation_mask(moment).mask_LF, soft_mask(mask->scores(), moment.schedule, kKept)));
    }
    task.start_LF = at::arange(kLayers * kChannels, at::kFloat).view({kLayers, kChannels}) * 1000;
    CHECK(at::equal(make(task)->top_set(kKept), hard_top_k(task.start_LF, kKept)));
    CHECK(largest(make(task)->scores() - standardise_scores(task.start_LF)) < 1e-6);
  }

  TEST_CASE("a global budget: one row over all layers, L K in all, whatever the layers") {
    MaskTask task = task_of("soft_top_k");
    task.budget.global = true;
    task.start_LF =
        at::arange(kLayers * kChannels, at::kFloat).view({kLayers, kChannels});  // all of layer 1 above all of layer 0
    const auto mask = make(task);
    const_cast<at::Tensor&>(mask->scores())[1].add_(3.0);
    const MaskMoment end = moment_of(task, kSteps);
    const at::Tensor plain_LF = mask->evaluation_mask(end).plain_LF.to(at::kDouble);
    CHECK(plain_LF.sum().item<double>() == doctest::Approx(kLayers * kKept).epsilon(1e-6));
    CHECK(plain_LF[1].sum().item<double>() > 1.9 * kKept);
    CHECK(kept_widths(mask->scores(), task.budget) == std::vector<int64_t>{1, 15});
  }

  TEST_CASE("straight_through: a hard set forward, the mask's own gradient backward") {
    MaskTask task = task_of("straight_through");
    task.options.score_scale = "raw";
    const auto mask = make(task);
    at::Tensor leaf = mask->scores();
    leaf.set_requires_grad(true);
    const MaskMoment moment = moment_of(task, 10);
    const StepMask now = mask->training_mask(moment);
    CHECK(at::equal(now.mask_LF.detach(), hard_top_k(leaf, kKept)));
    const at::Tensor g_LF = at::linspace(-2, 3, kLayers * kChannels, at::kFloat).view({kLayers, kChannels});
    CHECK(at::equal(mask->score_gradient(now.mask_LF, g_LF, {}), g_LF));
    leaf.set_requires_grad(false);
  }

  TEST_CASE("hard_concrete: noise by step, gates clamped, multipliers ascend by their gap") {
    const MaskTask task = task_of("hard_concrete");
    const auto mask = make(task);
    const MaskMoment moment = moment_of(task, 10);
    CHECK(at::equal(mask->training_mask(moment).mask_LF, mask->training_mask(moment).mask_LF));
    const_cast<at::Tensor&>(mask->scores()).fill_(0.0);
    CHECK_FALSE(at::equal(mask->training_mask(moment).mask_LF, mask->training_mask(moment_of(task, 11)).mask_LF));
    CHECK_FALSE(at::equal(mask->training_mask(moment).mask_LF[0], mask->training_mask(moment).mask_LF[1]));
    const_cast<at::Tensor&>(mask->scores()).fill_(5.0);
    mask->step(at::zeros({kLayers, kChannels}), moment);
    CHECK(largest(mask->scores() - std::log(100.0)) < 1e-6);
    // expected sparsity is near 0, the target 2/3: the gap is negative, its square positive; Adam's first step is its
    // rate, 1
    const at::Tensor multiplier_2L = mask->state()[3].second;
    CHECK(largest(multiplier_2L[0] + 1.0) < 1e-5);
    CHECK(largest(multiplier_2L[1] - 1.0) < 1e-5);
    CHECK(mask->state()[3].first == "multipliers");
  }
}

TEST_SUITE("golden") {
  TEST_CASE("coordinate_descent against soft_top_k.json, and how far it misses k") {
    const Json golden = tiny::golden("soft_top_k.json");
    int64_t missed = 0;
    for (const Json& row : golden.at("coordinate_descent")) {
      Lcg random{row.at("seed").get<uint64_t>()};
      std::vector<double> scores(row.at("n").get<size_t>());
      for (double& score : scores) score = row.at("scale").get<double>() * random.bell();
      const at::Tensor lambda_N =
          coordinate_descent(at::tensor(scores, at::kDouble).unsqueeze(0), row.at("k").get<double>(),
                             row.at("eps").get<double>(), row.at("rounds").get<int64_t>(), row.at("scaled").get<bool>(),
                             row.at("start_b").get<std::string>() == "minus_s")[0];
      CHECK(largest(lambda_N.narrow(0, 0, 4) - tiny::vector_of(row.at("lambda_first"))) < 1e-11);
      CHECK(lambda_N.sum().item<double>() == doctest::Approx(row.at("sum").get<double>()).epsilon(1e-11));
      missed += std::abs(lambda_N.sum().item<double>() - 171.0) > 1.0 ? 1 : 0;
    }
    CHECK(missed >= 4);
  }

  TEST_CASE("hard_concrete against hard_concrete.json: gates, gradients, evaluation, penalty") {
    const Json golden = tiny::golden("hard_concrete.json");
    const at::Tensor loga = tiny::vector_of(golden.at("loga")).unsqueeze(0),
                     u = tiny::vector_of(golden.at("u")).unsqueeze(0);
    for (const auto& [ours, theirs] : {std::pair{"l0", "l0"}, {"flop", "flop"}, {"llm_shearing", "sheared"}}) {
      INFO(ours);
      const HardConcreteRule& rule = hard_concrete_rule(ours);
      const Json& expected = golden.at("conventions").at(theirs);
      CHECK(rule.beta == doctest::Approx(expected.at("beta").get<double>()).epsilon(1e-15));
      CHECK(rule.offset == doctest::Approx(expected.at("offset").get<double>()).epsilon(1e-14));
      at::Tensor leaf = loga.clone().requires_grad_(true);
      const at::Tensor z = hard_concrete_sample(rule, leaf, u);
      CHECK(largest(z.detach()[0] - tiny::vector_of(expected.at("z"))) < 1e-12);
      z.sum().backward();
      CHECK(largest(leaf.grad()[0] - tiny::vector_of(expected.at("dz_dloga"))) < 1e-12);
      leaf = loga.clone().requires_grad_(true);
      const at::Tensor alive = hard_concrete_alive(rule, leaf);
      CHECK(largest(alive.detach()[0] - tiny::vector_of(expected.at("alive"))) < 1e-12);
      alive.sum().backward();
      CHECK(largest(leaf.grad()[0] - tiny::vector_of(expected.at("dalive_dloga"))) < 1e-12);
      CHECK(alive.sum().item<double>() == doctest::Approx(expected.at("expected_alive").get<double>()));
      CHECK(largest(hard_concrete_evaluate(rule, loga, {8})[0] - tiny::vector_of(expected.at("eval"))) < 1e-12);
      const int64_t num_alive = 8 - expected.at("eval_zeros_by_expected_count").get<int64_t>();
      CHECK(largest(hard_concrete_evaluate(rule, loga, {num_alive})[0] -
                    tiny::vector_of(expected.at("eval_after_zeroing"))) < 1e-12);
    }
    for (const Json& row : golden.at("lagrangian")) {
      const HardConcreteRule& rule = hard_concrete_rule("llm_shearing");
      at::Tensor leaf = loga.clone().requires_grad_(true);
      at::Tensor multiplier =
          at::tensor({row.at("lambda1").get<double>(), row.at("lambda2").get<double>()}, at::kDouble)
              .view({2, 1})
              .requires_grad_(true);
      const at::Tensor penalty = hard_concrete_penalty(rule, leaf, multiplier, row.at("target_sparsity").get<double>());
      CHECK(penalty.item<double>() == doctest::Approx(row.at("penalty").get<double>()).epsilon(1e-12));
      penalty.backward();
      CHECK(largest(leaf.grad()[0] - tiny::vector_of(row.at("d_loga"))) < 1e-12);
      CHECK(multiplier.grad()[0][0].item<double>() ==
            doctest::Approx(row.at("d_lambda1").get<double>()).epsilon(1e-12));
      CHECK(multiplier.grad()[1][0].item<double>() ==
            doctest::Approx(row.at("d_lambda2").get<double>()).epsilon(1e-12));
    }
  }
}

TEST_SUITE("grad") {
  TEST_CASE("coordinate_descent: the gradient is that of the unrolled loop, by central differences, converged or not") {
    const at::Tensor scores_RN = initial_scores(2, 9, 1.0, 4).to(at::kDouble);
    const at::Tensor g_RN = at::linspace(-1, 2, 18, at::kDouble).view({2, 9}).square();
    for (const bool scaled : {false, true}) {
      for (const bool minus_s : {false, true}) {
        const auto loss = [&](const at::Tensor& scores) {
          return (coordinate_descent(scores, 3.0, 0.3, 6, scaled, minus_s) * g_RN).sum();
        };
        at::Tensor leaf = scores_RN.clone().requires_grad_(true);
        loss(leaf).backward();
        for (int64_t i = 0; i < 18; ++i) {
          at::Tensor up = scores_RN.clone(), down = scores_RN.clone();
          up.view(-1)[i] += 1e-6;
          down.view(-1)[i] -= 1e-6;
          CHECK(std::abs((loss(up) - loss(down)).item<double>() / 2e-6 - leaf.grad().view(-1)[i].item<double>()) <
                1e-6 * (1 + largest(leaf.grad())));
        }
      }
    }
  }
}
