// train: fresh weights or an earlier stage's, next-token loss or 0.9 teacher label + 0.1 true label. Source, core, continued, lengthening and scratch are this.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "recipes/training.h"
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

}  // namespace

Json run_train(StageContext& context) {
  const auto& options = std::get<TrainStage>(context.stage.options);
  const TrainingOptions& training = options.training;
  Model model = starting_model(context, options);
  model.arena->enable_gradient();
  const bool published_core = options.from.empty() || !options.labels.empty();
  Optimizer optimizer(training.optimizer, *model.arena, warmup_steps(training, published_core ? kPublishedWarmupFresh : kPublishedWarmupContinued), training.steps());
  const double teacher_weight = options.labels.empty() ? 0.0 : options.teacher_weight;
  TrainingSession session(context, training, model, optimizer, open_labels(context, options.labels, training.mixture), {});
  Json extra;
  session.resume(extra);

  bool tested = false;
  while (session.step() < session.num_steps()) {
    LossSums sums;
    for (const Batch& batch : session.next_batches()) {
      const Targets targets = session.targets(batch, teacher_weight);
      if (!tested) {
        const double agreement = self_test_loss(model, batch, targets);
        if (agreement >= 0) log_info(fmt::format("stage '{}': the loss passed its self-test; teacher and true label agree on {:.1f}% of the first batch", context.stage.name, 100 * agreement));
        tested = true;
      }
      sums.add(train_micro_batch(model, batch, targets, {}, session.scale()));
    }
    const StepOutcome outcome = optimizer.step(std::isfinite(sums.terms(teacher_weight).loss));
    const double heldout = session.wants_heldout() ? session.heldout_loss() : std::nan("");
    session.end_step(sums, teacher_weight, outcome, heldout, {}, extra);
  }
  save_model(context.folder() / "model", model, model_facts(context));
  Json body = session.finish();
  body["results"] = {{"heldout_loss", session.heldout_loss()}};
  return body;
}

}  // namespace coppice
