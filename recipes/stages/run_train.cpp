// train: fresh weights or an earlier stage's, next-token loss alone or with a teacher: stored labels or a live model.
// Source, core, continued, lengthening and scratch are this.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "recipes/stages/teachers.h"
#include "recipes/stages/train.h"
#include "recipes/stages/training.h"
#include "src/base/log.h"
#include "src/checkpoint/checkpoint.h"
#include "src/model/parameters.h"
#include "src/tensors/transfers.h"
#include "student/self_test.h"

namespace coppice {
namespace {

constexpr int64_t kPublishedWarmupFresh = 5000, kPublishedWarmupContinued = 1000;  // core; continued and lengthening

Model starting_model(const StageContext& context, const TrainStage& options) {
  const ModelConfig config = context.recipe.model_after(context.stage.name);
  const Placement on = place_trained(context);
  if (options.from.empty()) {
    Model model = make_model(config, on);
    initialise_parameters(config, *model.arena, context.recipe.seed);
    return model;
  }
  Model model = load_model(context.model_folder(options.from), on).model;
  model.config.rope_theta = config.rope_theta;  // may have changed, as the longest sequence; no weight depends on them
  model.config.max_position_embeddings = config.max_position_embeddings;
  if (options.rope_theta > 0 && config.rope_scaling)
    log_info(
        fmt::format("stage '{}': RoPE base {}, and the model's llama3 scaling by {} goes on acting on what it gives",
                    context.stage.name, config.rope_theta, config.rope_scaling->factor));
  return model;
}

/// Targets of a micro-batch: what the teachers say while the stage distils, next-token loss otherwise.
std::vector<Targets> targets_of(StageTeachers& teachers, const Model& model, const Batch& batch,
                                const KdOptions& distillation, bool distils) {
  if (!distils) return {make_targets(batch, {}, distillation)};
  return teachers.targets(batch, distillation, model.config.num_hidden_layers);
}

/// The loss on the step's first micro-batches, as many as it takes to count how often the teacher is right.
void test_loss(const StageContext& context, StageTeachers& teachers, const Model& model,
               const std::vector<Batch>& batches, const KdOptions& distillation, bool distils) {
  std::vector<TestBatch> sample;
  int64_t live = 0;
  for (const Batch& batch : batches) {
    sample.push_back({.batch = batch,
                      .targets = targets_of(teachers, model, batch, distillation, distils),
                      .labels_in_place = true});  // check_labels; or live
    if ((live += batch.num_live) >= kEnoughLabels || !distils) break;
  }
  Fetch({&teachers.faults()}).wait();  // what the teachers lack is not the loss's fault
  teachers.check_faults();
  log_info(fmt::format("stage '{}': {}", context.stage.name, self_test_text(self_test_loss(model, sample))));
}

}  // namespace

Json run_train(StageContext& context) {
  const auto& options = context.stage.get<TrainStage>();
  Model model = starting_model(context, options);
  model.arena->enable_gradient();
  const bool published_core = options.from.empty() || options.has_teacher();
  const int64_t steps = options.training.steps(),
                warmup =
                    warmup_steps(options.training, published_core ? kPublishedWarmupFresh : kPublishedWarmupContinued);
  Optimizer optimizer(options.training.optimizer, *model.arena, warmup, steps);
  StageTeachers teachers(context, options);
  Training training(context, options.training, model, optimizer, teachers.names(), {});
  const Json extra = training.resume();

  bool tested = false, taught = false;
  while (training.state.step < steps) {
    const int64_t step = training.state.step;
    const auto distils_in = [&](int64_t s) {
      return options.has_teacher() && distils_at(options.distillation, s, steps);
    };
    const bool distils = distils_in(step);
    KdOptions distillation = options.distillation;
    distillation.teacher_weight = distils ? teacher_weight_at(options.distillation, step, steps) : 0;
    distillation.z_loss = options.training.z_loss;
    distillation.float_logits = options.training.float_logits;
    const std::vector<Batch>& batches = training.begin_step();
    if (!tested || (!taught && distils))
      test_loss(context, teachers, model, batches, distillation, distils);  // again when distillation begins later
    tested = true;
    taught |= distils;
    StepSums step_sums = accumulate_gradient(
        model, batches,
        [&](const Batch& batch) {
          if (distils) training.journal.add_flops(teachers.flops(batch));
          return targets_of(teachers, model, batch, distillation, distils);
        },
        {}, training.samples.scale(), head_loss, context.recompute);
    StepVote vote = training.vote();
    vote.count_finite(step_sums.values());
    optimizer.begin_step(context.comm, vote);
    Fetch fetch({&vote.values, &step_sums.values(), &teachers.faults()});
    if (const Batch* const first = training.read_ahead(); first != nullptr && distils_in(step + 1))
      teachers.read_ahead(*first, options.distillation);
    fetch.wait();  // for a device: the one time in a step
    teachers.check_faults();
    const StepOutcome outcome = optimizer.end_step(vote);
    const LossSums sums = step_sums.read();
    std::vector<std::pair<std::string, double>> keys;
    if (options.has_teacher() && is_scheduled(options.distillation))
      keys.emplace_back("teacher_weight", distillation.teacher_weight);
    training.end_step({.sums = sums, .outcome = outcome, .heldout = training.heldout_loss_if_due(), .extra = keys},
                      vote, extra);
  }
  save_model(context.folder() / "model", model, model_facts(context));
  Json body = training.finish();
  body["results"] = {{"heldout_loss", training.heldout.loss(model)}};
  return body;
}

}  // namespace coppice
