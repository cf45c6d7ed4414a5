#include "recipes/compress/speeds.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "pruning/cut_axis.h"
#include "pruning/mask_methods.h"
#include "recipes/stages/stage_cost.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/data/windows.h"
#include "src/model/parameters.h"
#include "src/optim/optimizer.h"
#include "src/tensors/caching_allocator.h"
#include "src/tensors/calibrated_cross_entropy.h"
#include "src/tensors/ops.h"
#include "student/targets.h"

namespace coppice {
namespace {

constexpr int64_t kMostFloatsRead = 1 << 26;  // 256 MB: beyond any cache, and no second student in memory

/// Seconds of one call: the mean of two or more in at least `least_s` seconds, behind one that finds its memory.
double seconds_of(double least_s, const std::function<void()>& work) {
  const auto pass = [&] {
    if (stop_requested()) throw Stopped("stopped while measuring how fast this machine is; run again to measure anew");
    work();
  };
  pass();
  const double begin_s = monotonic_s();
  double spent_s = 0;
  int calls = 0;
  for (; calls < 2 || spent_s < least_s; ++calls) {
    pass();
    spent_s = monotonic_s() - begin_s;
  }
  return spent_s / calls;
}

/// A batch as an evaluate stage scores it.
void score(const Model& model, const Batch& batch) {
  const at::NoGradGuard no_grad;
  (void)calibrated_cross_entropy({.hidden_ND = decoder_hidden(model, batch.input()),
                                  .head_VD = output_head(model),
                                  .true_label_N = batch.true_label_BT.reshape({-1})},
                                 {}, batch.num_live / 2);
}

/// Ids that differ, as text has them.
Batch made_up_batch(int64_t tokens, const BatchShape& shape, int64_t vocab_size) {
  const int64_t rows = tokens / shape.seq_len;
  Batch batch = make_batch(rows, shape.seq_len, false);
  const at::Tensor place_BT = at::arange(rows * shape.seq_len).view({rows, shape.seq_len});
  batch.token_BT = place_BT.mul(7919).remainder(vocab_size);
  batch.position_BT = at::arange(shape.seq_len).expand({rows, shape.seq_len}).contiguous();
  batch.true_label_BT = (place_BT + 1).mul(7919).remainder(vocab_size);
  batch.num_live = rows * shape.seq_len;
  batch.ids_below = vocab_size;
  batch.largest_position = shape.seq_len - 1;
  return batch;
}

Model fresh_model(const ModelConfig& config) {
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, 1);
  return model;
}

/// The source as it learns masks: its passes, and what surrounds them once a step.
void measure_masks(const Model& model, const Batch& batch, int64_t kept, double each_s, CompressSpeeds& speeds) {
  const int64_t layers = model.config.num_hidden_layers, channels = model.config.intermediate_size.front();
  const std::unique_ptr<LearnedMask> learned = find_mask_method("soft_top_k", "")
                                                   .make({.options = {},
                                                          .num_layers = layers,
                                                          .num_channels = channels,
                                                          .budget = {.num_kept = kept},
                                                          .warmup_steps = 1,
                                                          .num_steps = 100,
                                                          .seed = 1,
                                                          .start_LF = {}});
  const MaskMoment half{.step = 50, .schedule = mask_schedule({}, 0.5, channels, kept)};
  const at::Tensor& raw_LF = learned->scores();
  const at::Tensor mask_LF = learned->evaluation_mask(half).mask_LF.detach().set_requires_grad(true);
  const Targets targets = make_targets(batch, {}, {.teacher_weight = 0});
  model.arena->enable_gradient();
  const auto pass = [&] {
    (void)train_micro_batch(model, batch, targets, masks_on(CutAxis::ffn, mask_LF, model.config), 1.0).read();
  };
  speeds.mask_s = seconds_of(each_s, pass) / static_cast<double>(batch.num_live);
  speeds.mask_step_s = seconds_of(0, [&] {
    raw_LF.set_requires_grad(true);
    const StepMask trained = learned->training_mask(half);
    const at::Tensor gradient_LF = learned->score_gradient(trained.mask_LF, mask_LF.grad(), {});
    raw_LF.set_requires_grad(false);
    learned->step(gradient_LF, half);
    model.arena->zero_gradient();
  });
}

}  // namespace

CompressSpeeds measure_speeds(const ModelConfig& source, const ModelConfig& student, const BatchShape& shape,
                              double each_s) {
  const double begin_s = monotonic_s();
  const Batch batch = made_up_batch(shape.micro_batch_tokens, shape, source.vocab_size),
              read = made_up_batch(shape.read_batch_tokens, shape, source.vocab_size);
  const auto tokens = static_cast<double>(batch.num_live), read_tokens = static_cast<double>(read.num_live);
  const Targets plain = make_targets(batch, {}, {.teacher_weight = 0});
  CompressSpeeds speeds;
  {
    const at::Tensor like_weights = at::ones({std::min(count_parameters(student), kMostFloatsRead)});
    speeds.weight_byte_s =
        seconds_of(0, [&] { (void)like_weights.sum(); }) / static_cast<double>(like_weights.nbytes());
  }
  TopK top;  // of a micro-batch
  {
    const Model model = fresh_model(source);
    const auto choose = [&](const Batch& of) {
      const at::NoGradGuard no_grad;
      return top_k(decoder_hidden(model, of.input()), output_head(model), shape.top_k, 1);
    };
    top = choose(batch);
    speeds.label_s = seconds_of(each_s, [&] { (void)choose(read); }) / read_tokens;
    speeds.source_s = seconds_of(each_s, [&] { (void)evaluate_batch(model, batch, plain); }) / tokens;
    speeds.source_score_s = seconds_of(each_s, [&] { score(model, read); }) / read_tokens;
    measure_masks(model, batch, student.intermediate_size.front(), each_s, speeds);
  }
  release_cached_memory();
  {
    const Model model = fresh_model(student);
    speeds.student_s = seconds_of(each_s, [&] { (void)evaluate_batch(model, batch, plain); }) / tokens;
    speeds.student_score_s = seconds_of(each_s, [&] { score(model, read); }) / read_tokens;
    model.arena->enable_gradient();
    Optimizer optimizer({.optimizer = "adamw", .lr = 1e-4}, *model.arena, 1, 100);
    const KdOptions distillation{.loss = "top_k"};
    const TeacherSignal signal{
        .label_BT = {}, .top = top, .hidden_NE = {}, .head_VE = {}, .layer_ND = {}, .labels_below = source.vocab_size};
    const Targets taught = distillation_targets(batch, signal, distillation);
    const std::unique_ptr<Comm> comm = alone();
    speeds.train_s =
        seconds_of(each_s, [&] { (void)train_micro_batch(model, batch, taught, {}, 1 / tokens).read(); }) / tokens;
    speeds.train_step_s = seconds_of(0, [&] { (void)optimizer.step(*comm); });
  }
  release_cached_memory();
  speeds.measured_in_s = monotonic_s() - begin_s;
  return speeds;
}

CompressSpeeds estimate_speeds(const ModelConfig& source, const ModelConfig& student, const BatchShape& shape,
                               double gemm_gflops) {
  const double training = kTrainingShareOfGemm * gemm_gflops * 1e9, forward = kForwardShareOfGemm * gemm_gflops * 1e9;
  const double source_s = forward_flops_per_token(source, shape.seq_len) / forward,
               student_s = forward_flops_per_token(student, shape.seq_len) / forward,
               calibration_s = static_cast<double>(source.vocab_size) * kCalibrationFlopsPerLogit / forward;
  return {.mask_s = training_flops_per_token(source, shape.seq_len) / training,
          .label_s = source_s,
          .train_s = training_flops_per_token(student, shape.seq_len) / training,
          .source_s = source_s,
          .student_s = student_s,
          .source_score_s = source_s + calibration_s,
          .student_score_s = student_s + calibration_s};
}

std::string speeds_text(const CompressSpeeds& speeds) {
  const auto rate = [](double seconds) { return format_count(1 / seconds); };
  return fmt::format(
      "tokens a second here: masks {}, labels {}, recovery {}, held-out text {} and {}, scored with its calibration {} "
      "and {} (source, student)",
      rate(speeds.mask_s), rate(speeds.label_s), rate(speeds.train_s), rate(speeds.source_s), rate(speeds.student_s),
      rate(speeds.source_score_s), rate(speeds.student_score_s));
}

}  // namespace coppice
