// What a training stage does with a model whose matrices are bfloat16, on the CPU by the executor, or that lies on a
// device: the step with several terms of the loss, the update behind it, the logits that a loss and a label are made
// from. Forward and backward of each loss are held to double in tests/model/rehearsal_test.cpp.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <doctest/doctest.h>

#include <cmath>

#include "src/data/batch_device.h"
#include "src/model/parameters.h"
#include "src/optim/optimizer.h"
#include "src/tensors/device.h"
#include "src/tensors/executor/executor.h"
#include "student/targets.h"
#include "tests/student/small_model.h"
#include "tests/tensors/placements.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;

namespace {

constexpr int64_t kRows = 2, kSeqLen = 64;

Batch text() {
  const at::Tensor text_BT = (at::arange(kRows * (kSeqLen + 1)) * 7919).remainder(kVocab).view({kRows, -1});
  Batch batch{.token_BT = text_BT.narrow(1, 0, kSeqLen).contiguous(),
              .position_BT = at::arange(kSeqLen).repeat({kRows, 1}),
              .document_BT = {},
              .true_label_BT = text_BT.narrow(1, 1, kSeqLen).contiguous(),
              .spans = {}};
  batch.true_label_BT.select(1, 40).fill_(kIgnoredLabel);
  batch.num_live = kRows * (kSeqLen - 1);
  return batch;
}

struct Step {
  double loss = 0;
  at::Tensor gradient, moved;  // of all parameters, on the CPU: the gradient, and the master behind the update
};

/// One step under masks, with a live teacher's divergence and hidden states in two micro-batches; or one of true labels
/// alone.
Step step_of(const Placement& on, bool taught, bool float_logits = false, Recompute recompute = Recompute::none) {
  Model model = random_model(on, 3);
  const Model teacher = random_model(on, 9);
  model.arena->enable_gradient();
  const Batch batch = on_device(text(), on.device);
  const KdOptions options{.loss = "kl",
                          .teacher_weight = 0.7,
                          .temperature = 2.0,
                          .hidden_loss = "cosine",
                          .hidden_layers = {1, 2},
                          .z_loss = 1e-4,
                          .float_logits = float_logits};
  TeacherSignal signal;
  DecoderMasks masks;
  if (taught) {
    const c10::NoGradGuard no_grad;
    const auto layer = [&](int, const at::Tensor& output_ND) { signal.layer_ND.push_back(output_ND); };
    signal.hidden_NE = decoder_hidden(teacher, batch.input(), {}, {.layer_output = layer});
    signal.head_VE = output_head(teacher);
    masks.multiplier_F = {at::linspace(0.05, 1, 128).to(on.device), at::linspace(1, 0.3, 128).to(on.device)};
  }
  const std::vector<Batch> batches(taught ? 2 : 1, batch);
  const StepSums sums = accumulate_gradient(
      model, batches, [&](const Batch& one) { return std::vector{distillation_targets(one, signal, options)}; }, masks,
      gradient_scale(std::ssize(batches) * batch.num_live), head_loss, recompute);
  Step step{.loss = sums.read().terms().loss, .gradient = whole_gradient(*model.arena).cpu()};
  Optimizer optimizer({}, *model.arena, 0, 10);
  CHECK(optimizer.step(*alone()).applied);
  step.moved = whole_master(*model.arena).cpu();
  return step;
}

const Placement kExact{}, kRounded{.compute = at::kBFloat16};

double relative(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got - wanted).norm() / wanted.norm()).item<double>();
}

/// But for what an element type rounds, of a step in float32 on the CPU.
void check_near(const Step& step, const Step& exact, at::ScalarType compute) {
  const bool wide = compute == at::kFloat;
  CHECK(std::abs(step.loss - exact.loss) <= (wide ? 1e-5 : 2e-3));
  CHECK(relative(step.gradient, exact.gradient) <= (wide ? 2e-5 : 0.04));
}

void check_same(const Step& step, const Step& expected) {
  CHECK(step.loss == expected.loss);
  CHECK(step.gradient.equal(expected.gradient));
  CHECK(step.moved.equal(expected.moved));
}

}  // namespace

TEST_SUITE("parity") {
  TEST_CASE("rehearsal: a step with a live teacher and masks is that of float32 but for rounding") {
    const Step exact = step_of(kExact, true), rounded = step_of(kRounded, true);
    check_near(rounded, exact, at::kBFloat16);
    CHECK(relative(rounded.gradient, exact.gradient) > 1e-4);  // it is rounded
  }

  TEST_CASE("rehearsal: the step and its update have equal bits whoever runs first") {
    const Step first = step_of(kRounded, true);
    for (const executor::Schedule& schedule :
         {executor::Schedule{executor::Order::eager_backwards}, executor::Schedule{executor::Order::random, 1}}) {
      executor::set_schedule(schedule);
      const Step again = step_of(kRounded, true);
      executor::set_schedule({});
      check_same(again, first);
    }
  }

  TEST_CASE("rehearsal: the step and its update have equal bits whatever is computed again") {
    for (const Placement& on : {kExact, kRounded}) {
      const Step kept = step_of(on, true);
      for (const Recompute recompute : {Recompute::elementwise, Recompute::gate_up, Recompute::layer}) {
        const Step again = step_of(on, true, false, recompute);
        INFO(dtype_name(on.compute) << ", again: " << recompute_name(recompute));
        CHECK(again.loss == kept.loss);
        CHECK(again.gradient.equal(kept.gradient));
        CHECK(again.moved.equal(kept.moved));
      }
    }
  }

  TEST_CASE("rehearsal: the logits of a step's loss are bfloat16, unless they are asked for in float32") {
    const double narrow = step_of(kRounded, false).loss, wide = step_of(kRounded, false, true).loss;
    CHECK(narrow != wide);
    CHECK(std::abs(narrow - wide) <= 2e-3);
    CHECK(step_of(kExact, false, true).loss == step_of(kExact, false).loss);
    const Model model = random_model(kRounded, 3);
    const double looked_at = evaluate_batch(model, text(), make_targets(text(), {}, {.z_loss = 1e-4})).terms().loss;
    CHECK(looked_at == doctest::Approx(wide).epsilon(1e-6));  // a look has them in float32
  }

  TEST_CASE("rehearsal: labels differ from those in float32 at near ties alone") {
    const Batch batch = text();
    const Model exact = random_model(kExact, 3), rounded = random_model(kRounded, 3);
    const c10::NoGradGuard no_grad;
    const at::Tensor label_N = top_1(decoder_hidden(rounded, batch.input()), output_head(rounded)),
                     logits_NV = decoder_logits(exact, batch.input());
    const at::Tensor lost_N = logits_NV.amax(1) - logits_NV.gather(1, label_N.unsqueeze(1)).squeeze(1);
    CHECK(lost_N.max().item<double>() <= 0.05 * logits_NV.abs().max().item<double>());
    CHECK(lost_N.eq(0).to(at::kFloat).mean().item<double>() > 0.9);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE(
      "rehearsal: a step with a live teacher and masks is that of the CPU but for rounding, and repeats: on a device") {
    const Step exact = step_of(kExact, true);
    on_each(device_placements(), [&](const OpPlacement& on) {
      const Step step = step_of(on, true);
      check_near(step, exact, on.compute);
      check_same(step_of(on, true), step);
    });
  }
}
