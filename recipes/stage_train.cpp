// train: fresh weights or an earlier stage's, next-token loss alone or with a teacher: stored labels or a live model. Source, core, continued, lengthening and
// scratch are this.
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
  const bool published_core = options.from.empty() || options.has_teacher();
  Optimizer optimizer(training.optimizer, *model.arena, warmup_steps(training, published_core ? kPublishedWarmupFresh : kPublishedWarmupContinued),
                      training.steps());
  TrainingSession session(context, training, model, optimizer, open_teachers(context, options), options.top_k, {});
  Json extra;
  session.resume(extra);

  bool tested = false, taught = false;
  while (session.step() < session.num_steps()) {
    LossSums sums;
    const bool distils = options.has_teacher() && distils_at(options.distillation, session.step(), session.num_steps());
    KdOptions distillation = options.distillation;
    distillation.teacher_weight = distils ? teacher_weight_at(options.distillation, session.step(), session.num_steps()) : 0;
    for (const Batch& batch : session.next_batches()) {
      const std::vector<Targets> targets = session.targets(batch, distillation, distils);
      if (!tested || (!taught && distils)) {  // again when distillation begins later
        for (const Targets& target : targets)
          if (const double agreement = self_test_loss(model, batch, target); agreement >= 0)
            log_info(fmt::format("stage '{}': the loss passed its self-test; teacher and true label agree on {:.1f}% of the first batch", context.stage.name,
                                 100 * agreement));
        tested = true;
        taught = distils;
      }
      sums.add(train_micro_batch(model, batch, targets, {}, session.scale()));
    }
    const StepOutcome outcome = optimizer.step(std::isfinite(sums.terms(distillation.teacher_weight).loss));
    const double heldout = session.wants_heldout() ? session.heldout_loss() : std::nan("");
    session.end_step(sums, distillation.teacher_weight, outcome, heldout, {}, extra);
  }
  save_model(context.folder() / "model", model, model_facts(context));
  Json body = session.finish();
  body["results"] = {{"heldout_loss", session.heldout_loss()}};
  return body;
}

}  // namespace coppice
