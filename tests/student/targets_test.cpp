// The training step's arithmetic against the plain decoder in double and against numbers worked out by hand.
#include "student/targets.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>

#include "src/base/errors.h"
#include "src/model/parameters.h"
#include "src/optim/optimizer.h"
#include "tests/model/reference_decoder.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;
using namespace coppice::testing;

namespace {

Model random_model(uint64_t seed = 3) {
  const ModelConfig config = preset("test", "t");
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, seed);
  model.arena->enable_gradient();
  return model;
}

/// Rows of random tokens; row r has its last `dead[r]` targets in another document.
Batch random_batch(const std::vector<int64_t>& dead, int64_t seq_len = 24) {
  const auto rows = static_cast<int64_t>(dead.size());
  at::manual_seed(7);
  const at::Tensor text = at::randint(300, {rows, seq_len + 1}, at::kLong);
  Batch batch{.token_BT = text.narrow(1, 0, seq_len).contiguous(),
              .position_BT = at::arange(seq_len).repeat({rows, 1}),
              .document_BT = {},
              .true_label_BT = text.narrow(1, 1, seq_len).contiguous(),
              .spans = {},
              .num_live = 0};
  for (int64_t row = 0; row < rows; ++row)
    batch.true_label_BT[row]
        .narrow(0, seq_len - dead[static_cast<size_t>(row)], dead[static_cast<size_t>(row)])
        .fill_(kIgnoredLabel);
  batch.num_live = batch.true_label_BT.ge(0).sum().item<int64_t>();
  return batch;
}

Batch rows_of(const Batch& batch, int64_t first, int64_t count) {
  Batch part{.token_BT = batch.token_BT.narrow(0, first, count),
             .position_BT = batch.position_BT.narrow(0, first, count),
             .document_BT = {},
             .true_label_BT = batch.true_label_BT.narrow(0, first, count),
             .spans = {},
             .num_live = 0};
  part.num_live = part.true_label_BT.ge(0).sum().item<int64_t>();
  return part;
}

double relative_difference(const at::Tensor& got, const at::Tensor& expected) {
  return (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>() /
         expected.abs().max().item<double>();
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("targets: labels where the teacher has none repeat the true label") {
    const Batch batch = random_batch({0, 4});
    at::Tensor teacher_BT = at::full({2, 24}, 9, at::kLong);
    teacher_BT[0][3] = kIgnoredLabel;
    const Targets targets = make_targets(batch, teacher_BT, {.teacher_weight = 0.9, .z_loss = 1e-4});
    CHECK(targets.teacher_weight == 0.9);
    CHECK(targets.z_loss == 1e-4);
    CHECK(targets.true_label_N.equal(batch.true_label_BT.reshape({-1})));
    CHECK(targets.teacher_label_N[3].item<int64_t>() == batch.true_label_BT[0][3].item<int64_t>());
    CHECK(targets.teacher_label_N[4].item<int64_t>() == 9);
    const Targets plain = make_targets(batch, {}, {.teacher_weight = 0.9, .z_loss = 0});
    CHECK(plain.teacher_weight == 0);
    CHECK_FALSE(plain.teacher_label_N.defined());
    CHECK_THROWS_AS(make_targets(batch, at::zeros({2, 23}, at::kLong), {}), InternalError);
    CHECK_THROWS_AS(make_targets(batch, {}, {.teacher_weight = 1.5, .z_loss = 0}), InternalError);
  }

  TEST_CASE("targets: terms are means over live rows, by hand") {
    LossSums sums{.ce = 12, .kd = 6, .z = 0.4, .teacher_weight = 0.9, .num_live = 4, .correct = 0, .agree = 0};
    const LossTerms terms = sums.terms();
    CHECK(terms.ce == 3);
    CHECK(terms.kd == 1.5);
    CHECK(terms.loss == doctest::Approx(0.1 * 3 + 0.9 * 1.5 + 0.1));
    CHECK(LossSums{}.terms().loss == 0);
    LossSums plain = sums;
    plain.teacher_weight = 0;
    CHECK(plain.terms().loss == doctest::Approx(3.1));
    CHECK_THROWS_AS(sums.add(plain), InternalError);  // of other weights
    sums.add({.teacher_weight = 0.5});                // of no live row: nothing to weigh
    CHECK(sums.terms().loss == terms.loss);
    LossSums begun;
    begun.add(sums);
    CHECK(begun.terms().loss == terms.loss);
  }

  TEST_CASE("targets: a model of zeros pays log V for every token and is right where the label is id 0") {
    const ModelConfig config = preset("test", "t");
    const Model model = make_model(config);
    Batch batch = random_batch({0, 5});
    batch.true_label_BT[1][2] = 0;
    const LossSums sums = evaluate_batch(
        model, batch, make_targets(batch, at::zeros({2, 24}, at::kLong), {.teacher_weight = 0.9, .z_loss = 1e-2}));
    CHECK(sums.num_live == 24 + 19);
    CHECK(sums.ce == doctest::Approx(43 * std::log(300.0)).epsilon(1e-6));
    CHECK(sums.kd == doctest::Approx(43 * std::log(300.0)).epsilon(1e-6));
    CHECK(sums.z == doctest::Approx(43 * 1e-2 * std::log(300.0) * std::log(300.0)).epsilon(1e-6));
    CHECK(sums.agree == 43);  // ties go to the lowest id, which the labels name
    CHECK(sums.correct == batch.true_label_BT.eq(0).sum().item<int64_t>());
  }

  TEST_CASE("targets: no live row, no loss and no gradient") {
    const Model model = random_model();
    const Batch batch = random_batch({24, 24});
    const LossSums sums = train_micro_batch(model, batch, make_targets(batch, {}, {}), {}, 1.0).read();
    CHECK(sums.num_live == 0);
    CHECK(sums.terms().loss == 0);
    CHECK(whole_gradient(*model.arena).abs().max().item<double>() == 0);
  }

  TEST_CASE("targets: a micro-batch without a live row walks its way back, and changes no bit of the gradient") {
    const Model model = random_model(), teacher = random_model(5);
    const Batch live = random_batch({0, 9}), dead = random_batch({24, 24});
    const DecoderMasks masks{
        {at::linspace(0.1, 1, 96).requires_grad_(true), at::linspace(1, 0.1, 96).requires_grad_(true)}};
    int walked = 0;
    for (const at::Tensor& mask_F : masks.multiplier_F) mask_F.register_hook([&](const at::Tensor&) { ++walked; });
    const auto targets_of = [&](const Batch& batch, bool hidden) {
      TeacherSignal signal;
      decoder_hidden(teacher, batch.input(), {}, {.layer_output = [&](int, const at::Tensor& output_ND) {
                       if (hidden) signal.layer_ND.push_back(output_ND.detach());
                     }});
      return distillation_targets(batch, signal, {.hidden_loss = "cosine", .hidden_layers = {1, 2}, .z_loss = 1e-3});
    };
    for (const bool hidden : {false, true}) {
      CAPTURE(hidden);
      const StepSums sums = train_micro_batch(model, live, targets_of(live, hidden), masks, 0.1);
      const at::Tensor before = whole_gradient(*model.arena).clone(),
                       mask_before = masks.multiplier_F[0].grad().clone();
      CHECK(before.abs().max().item<double>() > 0);
      walked = 0;
      const LossSums none = train_micro_batch(model, dead, targets_of(dead, hidden), masks, 0.1).read();
      CHECK(walked == 2);  // both layers
      CHECK(none.num_live == 0);
      CHECK(none.terms().loss == 0);
      CHECK(none.hidden == 0);
      CHECK(whole_gradient(*model.arena).equal(before));
      CHECK(masks.multiplier_F[0].grad().equal(mask_before));
      CHECK(sums.read().num_live == 48 - 9);
    }
  }
}

TEST_SUITE("parity") {
  TEST_CASE("grad_accumulator: 1 x 8 equals 4 x 2 with ragged lengths") {
    const Batch batch = random_batch({0, 3, 20, 7, 24, 0, 11, 1});
    const at::Tensor teacher_BT = at::randint(300, {8, 24}, at::kLong);
    const KdOptions options{.teacher_weight = 0.9, .z_loss = 1e-3};
    const double scale = gradient_scale(batch.num_live);

    const Model whole = random_model(), parts = random_model();
    const LossSums once = train_micro_batch(whole, batch, make_targets(batch, teacher_BT, options), {}, scale).read();
    StepSums step;
    LossSums sum;
    for (int64_t first = 0; first < 8; first += 2) {
      const Batch part = rows_of(batch, first, 2);
      const StepSums some =
          train_micro_batch(parts, part, make_targets(part, teacher_BT.narrow(0, first, 2), options), {}, scale);
      step.add(some);
      sum.add(some.read());
    }
    CHECK(step.read().ce == sum.ce);  // added where they were made or one by one on the host: the same bits
    CHECK(step.read().kd == sum.kd);
    CHECK(step.read().z == sum.z);
    CHECK(step.read().num_live == sum.num_live);
    CHECK(step.read().teacher_weight == 0.9);
    CHECK(StepSums().read().num_live == 0);
    step.add({});
    CHECK(step.read().ce == sum.ce);
    CHECK(sum.num_live == once.num_live);
    CHECK(sum.terms().loss == doctest::Approx(once.terms().loss).epsilon(1e-6));
    CHECK(relative_difference(whole_gradient(*parts.arena), whole_gradient(*whole.arena)) <= 2e-6);

    // Averaging the micro-batches' means, the mistake this guards against, is far off.
    const Model means = random_model();
    for (int64_t first = 0; first < 8; first += 2) {
      const Batch part = rows_of(batch, first, 2);
      train_micro_batch(means, part, make_targets(part, teacher_BT.narrow(0, first, 2), options), {},
                        gradient_scale(part.num_live) / 4);
    }
    CHECK(relative_difference(whole_gradient(*means.arena), whole_gradient(*whole.arena)) > 0.02);
  }

  TEST_CASE("targets: a step that does not learn and evaluation count the same loss") {
    const Model model = random_model();
    const Batch batch = random_batch({0, 6});
    const Targets targets =
        make_targets(batch, at::randint(300, {2, 24}, at::kLong), {.teacher_weight = 0.5, .z_loss = 1e-3});
    const LossSums trained = train_micro_batch(model, batch, targets, {}, 0.1).read(),
                   evaluated = evaluate_batch(model, batch, targets);
    CHECK(trained.ce == doctest::Approx(evaluated.ce).epsilon(1e-6));
    CHECK(trained.kd == doctest::Approx(evaluated.kd).epsilon(1e-6));
    CHECK(trained.z == doctest::Approx(evaluated.z).epsilon(1e-6));
  }

  TEST_CASE("targets: steps on one batch repeat bit for bit and learn it") {
    const Batch batch = random_batch({0, 3, 9, 1});
    const Targets targets =
        make_targets(batch, at::randint(300, {4, 24}, at::kLong), {.teacher_weight = 0.9, .z_loss = 1e-6});
    const auto train = [&](std::vector<double>& losses) {
      Model model = random_model();
      Optimizer optimizer({.lr = 0.02}, *model.arena, 1, 20);
      for (int step = 0; step < 12; ++step) {
        losses.push_back(
            train_micro_batch(model, batch, targets, {}, gradient_scale(batch.num_live)).read().terms().loss);
        CHECK(optimizer.step(*alone()).applied);
        CHECK(whole_gradient(*model.arena).abs().max().item<double>() == 0);
      }
      return whole_master(*model.arena);
    };
    std::vector<double> losses, again;
    CHECK(train(losses).equal(train(again)));
    CHECK(losses == again);
    CHECK(losses.back() < 0.8 * losses.front());
  }

  TEST_CASE("targets: a student that is its own teacher agrees everywhere") {
    const Model model = random_model();
    const Batch batch = random_batch({0, 6});
    const at::Tensor own =
        decoder_logits(model, {.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = {}})
            .argmax(1)
            .view({2, 24});
    const LossSums sums = evaluate_batch(model, batch, make_targets(batch, own, {}));
    CHECK(sums.agree == sums.num_live);
    CHECK(sums.kd < sums.ce);
  }
}

TEST_SUITE("unit") {
  TEST_CASE("targets: the teacher's share over the steps, by hand") {
    const KdOptions constant{.teacher_weight = 0.9};
    CHECK(teacher_weight_at(constant, 0, 10) == 0.9);
    CHECK(teacher_weight_at(constant, 9, 10) == 0.9);
    const KdOptions late{.teacher_weight = 0.8, .teacher_weight_end = 0.2, .distil_from = 0.5, .distil_to = 0.9};
    CHECK(teacher_weight_at(late, 49, 100) == 0);
    CHECK(teacher_weight_at(late, 50, 100) == doctest::Approx(0.8));
    CHECK(teacher_weight_at(late, 70, 100) == doctest::Approx(0.5));
    CHECK(teacher_weight_at(late, 89, 100) == doctest::Approx(0.8 - 0.6 * 0.39 / 0.4));
    CHECK(teacher_weight_at(late, 90, 100) == 0);
    const KdOptions steps{.teacher_weight = 0.8, .teacher_weight_end = 0.2, .distil_from = 50, .distil_to = 90};
    for (const int64_t step : {0, 49, 50, 70, 89, 90, 99})
      CHECK(teacher_weight_at(steps, step, 100) == doctest::Approx(teacher_weight_at(late, step, 100)));
    CHECK(distils_at({.distil_to = 1}, 99, 100));  // 1 is the whole stage, not a step
    CHECK_FALSE(is_scheduled(constant));
    CHECK(is_scheduled(late));
    CHECK(is_scheduled({.distil_to = 20}));
  }

  TEST_CASE("targets: a loss takes from the signal what it needs; without it the stage is plain") {
    const Batch batch = random_batch({0, 4});
    const TeacherSignal signal{.label_BT = at::full({2, 24}, 9, at::kLong),
                               .top = {},
                               .hidden_NE = at::randn({48, 8}),
                               .head_VE = at::randn({300, 8})};
    CHECK(distillation_targets(batch, signal, {.loss = "labels"}).teacher_label_N.defined());
    CHECK_FALSE(distillation_targets(batch, signal, {.loss = "labels"}).teacher_hidden_NE.defined());
    CHECK(distillation_targets(batch, signal, {.loss = "kl"}).teacher_hidden_NE.defined());
    CHECK_FALSE(distillation_targets(batch, signal, {.loss = "top_k"}).has_teacher());
    CHECK(distillation_targets(batch, {}, {.loss = "jsd"}).teacher_weight == 0);
  }

  TEST_CASE("targets: what is known of ids is what is known of all of them") {
    Batch batch = random_batch({0, 4});
    const at::Tensor label_BT = at::full({2, 24}, 9, at::kLong);
    const auto bound = [&](int64_t of_batch, int64_t of_labels, const char* loss = "labels") {
      batch.ids_below = of_batch;
      return distillation_targets(batch,
                                  {.label_BT = label_BT,
                                   .top = {},
                                   .hidden_NE = at::randn({48, 8}),
                                   .head_VE = at::randn({300, 8}),
                                   .labels_below = of_labels},
                                  {.loss = loss})
          .labels_below;
    };
    CHECK(bound(300, 280) == 300);
    CHECK(bound(300, 320) == 320);
    CHECK(bound(300, 0) == 0);
    CHECK(bound(0, 300) == 0);
    CHECK(bound(300, 0, "kl") == 300);  // no label of the teacher's
    batch.ids_below = 300;
    CHECK(make_targets(batch, {}, {}).labels_below == 300);
    // Believed, the step's bits are the same; a bound beyond the vocabulary is not believed.
    const Model model = random_model(), looked = random_model();
    batch.largest_position = 23;
    const Batch unknown = random_batch({0, 4});
    train_micro_batch(model, batch, make_targets(batch, {}, {}), {}, 0.1);
    train_micro_batch(looked, unknown, make_targets(unknown, {}, {}), {}, 0.1);
    CHECK(whole_gradient(*model.arena).equal(whole_gradient(*looked.arena)));
    batch.ids_below = 301;
    batch.true_label_BT[0][0] = 300;
    CHECK_THROWS_WITH_AS(train_micro_batch(model, batch, make_targets(batch, {}, {}), {}, 0.1),
                         doctest::Contains("true_label_N[0]: got 300"), InternalError);
  }
}

TEST_SUITE("grad") {
  TEST_CASE("targets: gradients of a distilling step equal the plain loss on the plain decoder in double") {
    const Model model = random_model();
    const Batch batch = random_batch({0, 9, 24});
    const at::Tensor teacher_BT = at::randint(300, {3, 24}, at::kLong);
    const double weight = 0.9, z_loss = 1e-2, scale = gradient_scale(batch.num_live);
    const DecoderMasks masks{
        {at::linspace(0.1, 1, 96).requires_grad_(true), at::linspace(1, 0.1, 96).requires_grad_(true)}};
    const LossSums sums =
        train_micro_batch(model, batch, make_targets(batch, teacher_BT, {.teacher_weight = weight, .z_loss = z_loss}),
                          masks, scale)
            .read();

    const NamedWeights weights = reference_weights(model);
    const DecoderMasks plain{{masks.multiplier_F[0].detach().to(at::kDouble).requires_grad_(true),
                              masks.multiplier_F[1].detach().to(at::kDouble).requires_grad_(true)}};
    const at::Tensor logits =
        reference_logits(model.config, weights,
                         {.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = {}}, plain);
    const at::Tensor live = batch.true_label_BT.reshape({-1}).ge(0), lse = logits.logsumexp(1);
    const auto picked = [&](const at::Tensor& label) {
      return logits.gather(1, label.reshape({-1, 1}).clamp_min(0)).squeeze(1);
    };
    const at::Tensor row_loss =
        lse - (1 - weight) * picked(batch.true_label_BT) - weight * picked(teacher_BT) + z_loss * lse.square();
    const at::Tensor loss = row_loss.masked_select(live).mean();
    loss.backward();
    CHECK(sums.terms().loss == doctest::Approx(loss.item<double>()).epsilon(1e-6));
    for (const auto& [name, value] : weights) {
      CAPTURE(name);
      CHECK(relative_difference(model.arena->gradient_of(name), value.grad()) <= 2e-5);
    }
    for (size_t layer = 0; layer < 2; ++layer)
      CHECK(relative_difference(masks.multiplier_F[layer].grad(), plain.multiplier_F[layer].grad()) <= 2e-5);
  }

  TEST_CASE(
      "targets: gradients of every loss with a dense teacher equal the plain loss on the plain decoder in double") {
    const Model model = random_model(), teacher = random_model(5);
    const Batch batch = random_batch({0, 9, 24});
    const double weight = 0.7, z_loss = 1e-2, tau = 2, scale = gradient_scale(batch.num_live);
    const DecoderInput input{.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = {}};
    TeacherSignal signal{.label_BT = {},
                         .top = {},
                         .hidden_NE = decoder_hidden(teacher, input).detach() * 2,
                         .head_VE = output_head(teacher).detach()};
    signal.top = top_k(signal.hidden_NE, signal.head_VE, 299, tau);
    const at::Tensor log_q =
        (signal.hidden_NE.to(at::kDouble).mm(signal.head_VE.to(at::kDouble).t()) / tau).log_softmax(1);
    for (const char* loss_name : {"kl", "top_k", "reverse_kl", "jsd"}) {
      CAPTURE(loss_name);
      const std::string loss = loss_name;
      model.arena->zero_gradient();
      const LossSums sums =
          train_micro_batch(
              model, batch,
              distillation_targets(
                  batch, signal,
                  {.loss = loss, .teacher_weight = weight, .temperature = tau, .beta = 0.3, .z_loss = z_loss}),
              {}, scale)
              .read();
      const NamedWeights weights = reference_weights(model);
      const at::Tensor logits = reference_logits(model.config, weights, input, {}),
                       live = batch.true_label_BT.reshape({-1}).ge(0), lse = logits.logsumexp(1);
      const at::Tensor ce = lse - logits.gather(1, batch.true_label_BT.reshape({-1, 1}).clamp_min(0)).squeeze(1),
                       log_p = (logits / tau).log_softmax(1);
      const at::Tensor log_m = (0.3 * log_q.exp() + 0.7 * log_p.exp()).log();
      const auto kl = [](const at::Tensor& a, const at::Tensor& b) { return (a.exp() * (a - b)).sum(1); };
      // a tail of one id is that id: top_k with all but one is the full KL
      const at::Tensor divergence = loss == "reverse_kl" ? kl(log_p, log_q)
                                    : loss == "jsd"      ? 0.3 * kl(log_q, log_m) + 0.7 * kl(log_p, log_m)
                                                         : kl(log_q, log_p);
      const at::Tensor wanted =
          ((1 - weight) * ce + weight * tau * tau * divergence + z_loss * lse.square()).masked_select(live).mean();
      wanted.backward();
      CHECK(sums.terms().loss == doctest::Approx(wanted.item<double>()).epsilon(2e-6));
      for (const auto& [name, value] : weights) {
        CAPTURE(name);
        CHECK(relative_difference(model.arena->gradient_of(name), value.grad()) <= 3e-5);
      }
    }
  }

  TEST_CASE("hidden_state_loss: gradients of cosine and mse by central differences, layer by layer") {
    at::manual_seed(3);
    std::vector<at::Tensor> student_ND, teacher_ND;
    for (int layer = 0; layer < 2; ++layer) {
      student_ND.push_back(at::randn({5, 4}, at::kDouble).requires_grad_());
      teacher_ND.push_back(at::randn({5, 4}, at::kDouble));
    }
    const at::Tensor live_N = at::tensor({1, 0, 1, 1, 1}).to(at::kBool);
    for (const char* kind : {"cosine", "mse"}) {
      CAPTURE(kind);
      hidden_state_loss(kind, student_ND, teacher_ND, live_N).backward();
      for (size_t layer = 0; layer < 2; ++layer) {
        for (int64_t n = 0; n < 5; ++n)
          for (int64_t d = 0; d < 4; ++d) {
            const auto moved = [&](double step) {
              std::vector<at::Tensor> shifted_ND;
              for (const at::Tensor& student : student_ND) shifted_ND.push_back(student.detach().clone());
              shifted_ND[layer][n][d] += step;
              return hidden_state_loss(kind, shifted_ND, teacher_ND, live_N).item<double>();
            };
            CHECK(std::abs(student_ND[layer].grad()[n][d].item<double>() - (moved(1e-6) - moved(-1e-6)) / 2e-6) <=
                  1e-8);
          }
        CHECK(student_ND[layer].grad()[1].abs().max().item<double>() == 0);
        student_ND[layer].mutable_grad() = at::Tensor();
      }
    }
  }

  TEST_CASE(
      "targets: several teachers count by their shares, hidden-state losses add theirs: gradients against the plain "
      "decoder in double") {
    const Model model = random_model(), teacher = random_model(5);
    const Batch batch = random_batch({0, 9, 24});
    const at::Tensor first_BT = at::randint(300, {3, 24}, at::kLong), second_BT = at::randint(300, {3, 24}, at::kLong);
    const double weight = 0.8, scale = gradient_scale(batch.num_live);
    const DecoderInput input{.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = {}};
    std::vector<at::Tensor> teacher_ND;
    decoder_hidden(teacher, input, {}, {.layer_output = [&](int, const at::Tensor& output_ND) {
                     teacher_ND.push_back(output_ND.detach());
                   }});
    for (const char* kind : {"cosine", "mse"}) {
      CAPTURE(kind);
      KdOptions options{
          .teacher_weight = weight, .hidden_loss = kind, .hidden_weight = 0.5, .hidden_layers = {1, 2}, .z_loss = 1e-2};
      const TeacherSignal both[] = {
          {.label_BT = first_BT, .top = {}, .hidden_NE = {}, .head_VE = {}, .layer_ND = teacher_ND},
          {.label_BT = second_BT, .top = {}, .hidden_NE = {}, .head_VE = {}, .layer_ND = {}}};
      std::vector<Targets> targets = {distillation_targets(batch, both[0], options),
                                      distillation_targets(batch, both[1], options)};
      targets[0].share = 0.25;
      targets[1].share = 0.75;
      model.arena->zero_gradient();
      const LossSums sums = train_micro_batch(model, batch, targets, {}, scale).read();
      REQUIRE(sums.kd_of.size() == 2);
      CHECK(sums.kd == doctest::Approx(0.25 * sums.kd_of[0] + 0.75 * sums.kd_of[1]));
      CHECK(sums.hidden > 0);

      const NamedWeights weights = reference_weights(model);
      std::vector<at::Tensor> student_ND;
      const at::Tensor logits = reference_logits(model.config, weights, input, {}, &student_ND);
      REQUIRE(student_ND.size() == 2);
      const at::Tensor live = batch.true_label_BT.reshape({-1}).ge(0), lse = logits.logsumexp(1);
      const auto picked = [&](const at::Tensor& label) {
        return logits.gather(1, label.reshape({-1, 1}).clamp_min(0)).squeeze(1);
      };
      at::Tensor hidden = at::zeros_like(lse);
      for (size_t layer = 0; layer < 2; ++layer) {
        const at::Tensor s = student_ND[layer], t = teacher_ND[layer].to(at::kDouble);
        hidden = hidden + 0.5 * (std::string(kind) == "mse" ? (s - t).square().mean(1)
                                                            : 1 - (s * t).sum(1) / (s.norm(2, 1) * t.norm(2, 1)));
      }
      const at::Tensor row_loss = lse - (1 - weight) * picked(batch.true_label_BT) -
                                  weight * (0.25 * picked(first_BT) + 0.75 * picked(second_BT)) + 1e-2 * lse.square() +
                                  0.25 * 0.5 * hidden;
      const at::Tensor loss = row_loss.masked_select(live).mean();
      loss.backward();
      CHECK(sums.terms().loss == doctest::Approx(loss.item<double>()).epsilon(1e-6));
      for (const auto& [name, value] : weights) {
        CAPTURE(name);
        CHECK(relative_difference(model.arena->gradient_of(name), value.grad()) <= 3e-5);
      }
    }
  }
}
