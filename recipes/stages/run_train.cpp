// train: fresh weights or an earlier stage's, next-token loss alone or with a teacher: stored labels or a live model.
// Source, core, continued, lengthening and scratch are this.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "recipes/stages/train.h"
#include "recipes/stages/training.h"
#include "src/base/log.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

constexpr int64_t kPublishedWarmupFresh = 5000, kPublishedWarmupContinued = 1000;  // core; continued and lengthening

Model starting_model(const StageContext& context, const TrainStage& options) {
  const ModelConfig config = context.recipe.model_after(context.stage.name);
  if (options.from.empty()) {
    Model model = make_model(config);
    initialise_parameters(config, *model.arena, context.recipe.seed);
    return model;
  }
  Model model = load_model(context.model_folder(options.from)).model;
  model.config.rope_theta = config.rope_theta;  // may have changed, as the longest sequence; no weight depends on them
  model.config.max_position_embeddings = config.max_position_embeddings;
  return model;
}

/// The loss on the step's first micro-batches, as many as it takes to count how often the teacher is right.
void test_loss(const TrainingSession& session, const StageContext& context, const Model& model,
               const std::vector<Batch>& batches, const KdOptions& distillation, bool distils) {
  std::vector<TestBatch> sample;
  int64_t live = 0;
  for (const Batch& batch : batches) {
    sample.push_back({.batch = batch,
                      .targets = session.targets(batch, distillation, distils),
                      .labels_in_place = true});  // check_labels; or live
    if ((live += batch.num_live) >= kEnoughLabels || !distils) break;
  }
  log_info(fmt::format("stage '{}': {}", context.stage.name, self_test_text(self_test_loss(model, sample))));
}

}  // namespace

Json run_train(StageContext& context) {
  const auto& options = context.stage.get<TrainStage>();
  const TrainingOptions& training = options.training;
  Model model = starting_model(context, options);
  model.arena->enable_gradient();
  const bool published_core = options.from.empty() || options.has_teacher();
  Optimizer optimizer(training.optimizer, *model.arena,
                      warmup_steps(training, published_core ? kPublishedWarmupFresh : kPublishedWarmupContinued),
                      training.steps());
  TrainingSession session(context, training, model, optimizer, open_teachers(context, options), options.top_k, {});
  Json extra;
  session.resume(extra);

  bool tested = false, taught = false;
  while (session.step() < session.num_steps()) {
    LossSums sums;
    const bool distils = options.has_teacher() && distils_at(options.distillation, session.step(), session.num_steps());
    KdOptions distillation = options.distillation;
    distillation.teacher_weight =
        distils ? teacher_weight_at(options.distillation, session.step(), session.num_steps()) : 0;
    const std::vector<Batch> batches = session.next_batches();
    if (!tested || (!taught && distils))
      test_loss(session, context, model, batches, distillation, distils);  // again when distillation begins later
    tested = true;
    taught |= distils;
    for (const Batch& batch : batches) {
      const std::vector<Targets> targets = session.targets(batch, distillation, distils);
      if (distils) session.count_live_teachers(batch);
      sums.add(train_micro_batch(model, batch, targets, {}, session.scale()));
    }
    const StepOutcome outcome = optimizer.step(std::isfinite(sums.terms(distillation.teacher_weight).loss));
    const double heldout = session.wants_heldout() ? session.heldout_loss() : std::nan("");
    std::vector<std::pair<std::string, double>> keys;
    if (options.has_teacher() && is_scheduled(options.distillation))
      keys.emplace_back("teacher_weight", distillation.teacher_weight);
    session.end_step(sums, distillation.teacher_weight, outcome, heldout, keys, extra);
  }
  save_model(context.folder() / "model", model, model_facts(context));
  Json body = session.finish();
  body["results"] = {{"heldout_loss", session.heldout_loss()}};
  return body;
}

}  // namespace coppice
