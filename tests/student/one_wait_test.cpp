// The host side of a step on a device: from the upload of its batch to the read of its outcome nothing is waited for,
// and after a few steps nothing is allocated. On the CPU the same steps are run for their numbers.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "src/data/batch_device.h"
#include "src/model/parameters.h"
#include "src/optim/optimizer.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/device_waits.h"
#include "src/tensors/transfers.h"
#include "student/targets.h"
#include "teacher/live_signal.h"
#include "tests/student/small_model.h"
#include "tests/tensors/placements.h"

using namespace coppice;

namespace {

constexpr int64_t kRows = 2, kSeqLen = 64;
constexpr int kWarmUp = 3, kSteps = 6;

/// As a loader makes it: what is known of its numbers, and two documents a row where `document_mask`.
Batch text(bool document_mask) {
  const at::Tensor text_BT = (at::arange(kRows * (kSeqLen + 1)) * 7919).remainder(kVocab).view({kRows, -1});
  Batch batch{.token_BT = text_BT.narrow(1, 0, kSeqLen).contiguous(),
              .position_BT = at::arange(kSeqLen).repeat({kRows, 1}),
              .document_BT = {},
              .true_label_BT = text_BT.narrow(1, 1, kSeqLen).contiguous(),
              .spans = {}};
  if (document_mask) batch.document_BT = at::arange(kSeqLen, at::kInt).ge(40).to(at::kInt).repeat({kRows, 1});
  batch.true_label_BT.select(1, 39).fill_(kIgnoredLabel);
  batch.num_live = kRows * (kSeqLen - 1);
  batch.ids_below = kVocab;
  batch.largest_position = kSeqLen - 1;
  return batch;
}

struct StepCase {
  std::string name;
  KdOptions options;
  bool document_mask = false, masks = false;
  bool live = false;  // ids of a live teacher
  double proposal_temperature = 1;
  Recompute recompute = Recompute::none;
  bool split_master = false;
};

const std::vector<StepCase>& step_cases() {
  static const std::vector<StepCase> cases = {
      {.name = "stored labels", .options = {.loss = "labels"}},
      {.name = "stored top-k", .options = {.loss = "top_k"}, .document_mask = true},
      {.name = "a live teacher's divergence and hidden states, under masks",
       .options = {.loss = "kl", .hidden_loss = "cosine", .hidden_layers = {1, 2}},
       .masks = true},
      {.name = "a live teacher's labels, norms and hidden values again, split master",
       .options = {.loss = "labels"},
       .masks = true,
       .live = true,
       .recompute = Recompute::elementwise,
       .split_master = true},
      {.name = "a live teacher's top-k, gate and up again",
       .options = {.loss = "top_k"},
       .live = true,
       .recompute = Recompute::gate_up},
      {.name = "a live teacher's top-k, decoupled, layers again",
       .options = {.loss = "decoupled_top_k", .temperature = 2},
       .document_mask = true,
       .live = true,
       .recompute = Recompute::layer},
      {.name = "a live teacher's draws", .options = {.loss = "sample"}, .live = true},
      {.name = "a live teacher's draws, weighted",
       .options = {.loss = "sample"},
       .live = true,
       .proposal_temperature = 1.2},
      {.name = "a live teacher's top-k and draws", .options = {.loss = "hybrid"}, .live = true},
  };
  return cases;
}

/// Without near ties between the tokens that it finds most probable, which rounding would turn over.
Model sure_teacher(Placement on) {
  on.split_master = false;
  Model teacher = random_model(on, 9);
  const MasterEditor master = teacher.arena->edit_master();
  master["embed_tokens.weight"].mul_(20);
  return teacher;
}

/// What a stored or live teacher says.
TeacherSignal signal_of(const StepCase& step, const Model& teacher, const Batch& batch) {
  const at::Device device = batch.token_BT.device();
  if (step.live) {
    const at::Tensor number_NR = (at::arange(3 * kRows * kSeqLen, at::kDouble) * 0.6180339887).frac().view({-1, 3});
    return live_signal(teacher, batch,
                       {.loss = step.options.loss,
                        .top_k = 4,
                        .temperature = label_temperature(step.options),
                        .proposal_temperature = step.proposal_temperature,
                        .hidden_layers = {},
                        .draw_number_NR = reads_draws(step.options.loss) ? sent(number_NR, device) : at::Tensor()});
  }
  const c10::NoGradGuard no_grad;
  TeacherSignal signal{.labels_below = kVocab};
  const at::Tensor label_N = (at::arange(kRows * kSeqLen) * 31).remainder(kVocab);
  if (step.options.loss == "labels") {
    signal.label_BT = label_N.view({kRows, kSeqLen});
  } else if (step.options.loss == "top_k") {
    signal.top = {.id_NK = at::stack({label_N, (label_N + 1).remainder(kVocab)}, 1),
                  .logp_NK = at::full({kRows * kSeqLen, 2}, std::log(0.4), at::kFloat),
                  .tail_logp_N = at::full({kRows * kSeqLen}, std::log(0.2), at::kFloat)};
  } else {
    const auto layer = [&](int, const at::Tensor& output_ND) { signal.layer_ND.push_back(output_ND); };
    signal.hidden_NE = decoder_hidden(teacher, batch.input(), {}, {.layer_output = layer});
    signal.head_VE = output_head(teacher);
  }
  send({&signal.label_BT, &signal.top.id_NK, &signal.top.logp_NK, &signal.top.tail_logp_N}, device);
  return signal;
}

struct Outcome {
  std::vector<double> loss;
  at::Tensor mask_grad_F;  // of the last step
};

/// Steps as the training stages take them, each of two micro-batches; on a device held to no wait and still memory.
Outcome run_steps(const StepCase& step, Placement on) {
  on.split_master = step.split_master && on.compute == at::kBFloat16;
  Model model = random_model(on, 3);
  const Model teacher = sure_teacher(on);
  model.arena->enable_gradient();
  Optimizer optimizer({.lr = 1e-3}, *model.arena, 0, kSteps);
  const Batch host = text(step.document_mask);
  Outcome outcome;
  CardMemory warm;
  for (int i = 0; i < kSteps; ++i) {
    at::Tensor mask_grad_F;
    {
      std::optional<NoDeviceWaits> no_waits;
      if (i >= kWarmUp) no_waits.emplace();
      const std::vector<Batch> batches = {on_device(host, on.device), on_device(host, on.device)};
      const at::Tensor mask_F = sent(at::linspace(0.05, 1, kChannels), on.device).set_requires_grad(true);
      DecoderMasks masks;
      if (step.masks) masks.multiplier_F = {mask_F, mask_F};
      StepSums sums = accumulate_gradient(
          model, batches,
          [&](const Batch& batch) {
            return std::vector{distillation_targets(batch, signal_of(step, teacher, batch), step.options)};
          },
          masks, gradient_scale(2 * host.num_live), head_loss, step.recompute);
      StepVote vote(2, on.device);
      vote.sums().select(0, 0).fill_(1);
      vote.count_finite(sums.values());
      mask_grad_F = mask_F.grad();
      vote.count_finite(mask_grad_F);
      optimizer.begin_step(*alone(), vote);
      Fetch fetch({&vote.values, &sums.values(), &mask_grad_F});
      fetch.wait();
      CHECK(optimizer.end_step(vote).applied);
      CHECK(vote.sums()[0].item<double>() == 1);
      outcome.loss.push_back(sums.read().terms().loss);
    }
    outcome.mask_grad_F = mask_grad_F;
    if (i == kWarmUp - 1 && on.device.is_cuda()) warm = card_memory(on.device);
  }
  if (on.device.is_cuda()) {
    CHECK(card_memory(on.device).allocations == warm.allocations);
    CHECK(card_memory(on.device).segments == warm.segments);
  }
  return outcome;
}

/// But for rounding.
void check_near(const StepCase& step, const Outcome& got, const Outcome& exact) {
  for (size_t i = 0; i < exact.loss.size(); ++i) CHECK(std::abs(got.loss[i] - exact.loss[i]) <= 0.02);
  CHECK(got.mask_grad_F.defined() == step.masks);
  if (step.masks)
    CHECK(((got.mask_grad_F - exact.mask_grad_F).norm() / exact.mask_grad_F.norm()).item<double>() <= 0.08);
}

}  // namespace

TEST_SUITE("parity") {
  TEST_CASE("step: the steps that a device is held to learn on the CPU, and the rehearsal's are near them") {
    for (const StepCase& step : step_cases()) {
      CAPTURE(step.name);
      const Outcome exact = run_steps(step, {});
      CHECK(exact.loss.back() < exact.loss.front());
      check_near(step, run_steps(step, {.compute = at::kBFloat16}), exact);
    }
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("step: nothing waits for the device but one read, and its memory stands still after three") {
    for (const StepCase& step : step_cases()) {
      CAPTURE(step.name);
      const Outcome exact = run_steps(step, {});
      CHECK(exact.loss.back() < exact.loss.front());
      on_each(device_placements(), [&](const OpPlacement& on) { check_near(step, run_steps(step, on), exact); });
    }
  }
}
