// learn_masks: Soft-Top-K masks over the FFN channels, learned together with the weights on the next-token loss.
// r raw scores [L, F]; s = standardised; lambda = soft_top_k(s, k(p), epsilon(p)) multiplies the up output; p = share of the steps done.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "pruning/mask_file.h"
#include "pruning/scores.h"
#include "pruning/soft_masks.h"
#include "recipes/training.h"
#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr int64_t kPublishedWarmup = 1000;

/// Share of channels that both choices keep.
double overlap(const at::Tensor& hard_a_LF, const at::Tensor& hard_b_LF) { return 1.0 - mask_churn(hard_a_LF, hard_b_LF); }

}  // namespace

Json run_learn_masks(StageContext& context) {
  const auto& options = std::get<LearnMasksStage>(context.stage.options);
  const TrainingOptions& training = options.training;
  LoadedModel source = load_model(context.model_folder(options.from));
  Model& model = source.model;
  const std::vector<int64_t>& kept_by_layer = context.recipe.models.at(options.target).intermediate_size;
  const int64_t layers = model.config.num_hidden_layers, channels = model.config.intermediate_size[0], kept = kept_by_layer[0];
  for (int64_t layer = 0; layer < layers; ++layer)
    if (kept_by_layer[static_cast<size_t>(layer)] != kept || model.config.intermediate_size[static_cast<size_t>(layer)] != channels)
      throw UserError::recipe(context.stage.where, "learn_masks needs one FFN width for all layers, before and after");
  const at::Tensor magnitude_LF = hard_top_k(find_score("magnitude", "").compute({.model = &model, .batches = {}, .seed = context.recipe.seed}), kept);
  const at::Tensor random_LF = hard_top_k(find_score("random", "").compute({.model = &model, .batches = {}, .seed = context.recipe.seed}), kept);

  model.arena->enable_gradient();
  const int64_t steps = training.steps(), warmup = warmup_steps(training, kPublishedWarmup);
  Optimizer optimizer(training.optimizer, *model.arena, warmup, steps);
  at::Tensor raw_LF = initial_scores(layers, channels, options.masks.score_init_std, context.recipe.seed);
  ScoreOptimizer score_optimizer(raw_LF, options.masks.score_lr, 0.9, 0.95, warmup, steps);
  at::Tensor previous_hard_LF = hard_top_k(raw_LF, kept).contiguous();
  TrainingSession session(context, training, model, optimizer, {},
                          {{"/mask/scores", raw_LF}, {"/mask/m", score_optimizer.first_moment()}, {"/mask/v", score_optimizer.second_moment()}, {"/mask/previous_hard", previous_hard_LF}});
  Json extra;
  session.resume(extra);
  if (extra.contains("score_t")) score_optimizer.restore(extra["score_t"].get<int64_t>());

  const auto share = [&](int64_t step) { return static_cast<double>(step) / static_cast<double>(steps); };
  bool tested = false;
  while (session.step() < session.num_steps()) {
    const MaskSchedule schedule = mask_schedule(options.masks, share(session.step()), channels, kept);
    raw_LF.set_requires_grad(true);
    const at::Tensor soft_LF = soft_mask(raw_LF, schedule, kept);
    const at::Tensor mask_LF = soft_LF.detach().set_requires_grad(true);  // one solve a step, however many micro-batches
    const FfnMasks masks = masks_of(mask_LF);
    LossSums sums;
    for (const Batch& batch : session.next_batches()) {
      const Targets targets = session.targets(batch, KdOptions{.teacher_weight = 0});
      if (!tested) self_test_loss(model, batch, targets);
      tested = true;
      sums.add(train_micro_batch(model, batch, targets, masks, session.scale()));
    }
    // at k = F every gate is saturated and no score moves
    if (mask_LF.grad().defined() && soft_LF.requires_grad()) soft_LF.backward(mask_LF.grad());
    const at::Tensor score_grad_LF = raw_LF.grad().defined() ? raw_LF.grad() : at::zeros_like(raw_LF);
    const bool finite = std::isfinite(sums.terms(0).loss) && score_grad_LF.isfinite().all().item<bool>();
    if (options.masks.freeze_weights) model.arena->zero_gradient();
    StepOutcome outcome{.applied = finite, .grad_norm = 0, .lr = 0};
    if (!options.masks.freeze_weights) outcome = optimizer.step(finite);
    raw_LF.set_requires_grad(false);
    if (outcome.applied) score_optimizer.step(score_grad_LF);
    raw_LF.mutable_grad() = at::Tensor();

    const at::Tensor lambda_LF = soft_LF.detach();
    const MaskHealth health = mask_health(lambda_LF, raw_LF, schedule.k, kept);
    std::vector<std::pair<std::string, double>> keys = {{"sparsity", health.sparsity},   {"k", schedule.k},
                                                        {"top_k_epsilon", schedule.epsilon}, {"sum_error", schedule.top ? 0.0 : health.sum_error},
                                                        {"sharpness", health.sharpness}, {"saturated_share", health.saturated_share},
                                                        {"entropy", health.entropy},     {"score_std", health.score_std},
                                                        {"score_grad_norm", score_grad_LF.norm().item<double>()}};
    double heldout = std::nan("");
    if (session.wants_heldout()) {
      const at::Tensor hard_LF = hard_top_k(raw_LF, kept);
      heldout = session.heldout_loss(masks_of(lambda_LF));
      keys.emplace_back("heldout_hard_loss", session.heldout_loss(masks_of(hard_LF * lambda_LF)));
      keys.emplace_back("heldout_random_loss", session.heldout_loss(masks_of(random_LF)));
      keys.emplace_back("churn", mask_churn(previous_hard_LF, hard_LF));
      keys.emplace_back("overlap_magnitude", overlap(hard_LF, magnitude_LF));
      keys.emplace_back("overlap_random", overlap(hard_LF, random_LF));
      for (int64_t layer = 0; layer < layers; ++layer) {
        keys.emplace_back(fmt::format("kept_share.{}", layer), 1.0 - health.layer_sparsity[static_cast<size_t>(layer)]);
        keys.emplace_back(fmt::format("sharpness.{}", layer), health.layer_sharpness[static_cast<size_t>(layer)]);
        keys.emplace_back(fmt::format("churn.{}", layer), mask_churn(previous_hard_LF.narrow(0, layer, 1), hard_LF.narrow(0, layer, 1)));
      }
      previous_hard_LF.copy_(hard_LF);
    }
    extra["score_t"] = score_optimizer.t();
    session.end_step(sums, 0.0, outcome, heldout, keys, extra);
  }

  // The last form of the mask, at p = 1: what the cut merges into the up rows.
  const MaskSchedule last = mask_schedule(options.masks, 1.0, channels, kept);
  const at::Tensor soft_LF = soft_mask(raw_LF, last, kept).detach();
  const double soft_loss = session.heldout_loss(masks_of(soft_LF)), hard_loss = session.heldout_loss(masks_of(soft_LF * hard_top_k(raw_LF, kept)));
  const double random_loss = session.heldout_loss(masks_of(random_LF));
  const MaskHealth health = mask_health(soft_LF, raw_LF, last.k, kept);
  if (!(hard_loss < random_loss))
    log_warning(fmt::format("stage '{}': the learned cut (held-out loss {:.4f}) is no better than a random one ({:.4f}); more tokens or a higher score_lr may help", context.stage.name, hard_loss, random_loss));
  save_model(context.folder() / "model", model, model_facts(context));
  std::string model_sha256;
  load_model_config(context.folder() / "model", &model_sha256);
  save_masks(context.folder() / "masks.h5", {.scores_LF = raw_LF, .soft_LF = soft_LF, .source_sha256 = model_sha256, .num_kept = kept, .epsilon = last.epsilon});
  Json body = session.finish();
  body["results"] = {{"heldout_soft_loss", soft_loss}, {"heldout_hard_loss", hard_loss}, {"heldout_random_loss", random_loss}, {"sharpness", health.sharpness},
                     {"overlap_magnitude", overlap(hard_top_k(raw_LF, kept), magnitude_LF)}, {"overlap_random", overlap(hard_top_k(raw_LF, kept), random_LF)}};
  return body;
}

}  // namespace coppice
