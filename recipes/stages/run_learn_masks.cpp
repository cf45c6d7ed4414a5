// learn_masks: masks over the FFN channels, learned together with the weights on the next-token loss; the method is a
// row of the table of mask methods. A step: mask from scores -> masked forward and backward -> weights move, scores
// move -> health. p = share of the steps done.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "pruning/compaction.h"
#include "pruning/mask_file.h"
#include "pruning/mask_health.h"
#include "pruning/mask_methods.h"
#include "pruning/scores.h"
#include "pruning/soft_masks.h"
#include "recipes/stages/calibration.h"
#include "recipes/stages/learn_masks.h"
#include "recipes/stages/training.h"
#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr int64_t kPublishedWarmup = 1000;

/// What cheaper choices would keep, to compare the learned one with: one-shot scores of the source.
struct OtherChoices {
  struct Choice {
    const char* name;
    at::Tensor scores_LF;
  };
  std::vector<Choice> choices;

  OtherChoices(const Model& source, const std::vector<Batch>& batches, uint64_t seed) {
    for (const char* name : {"magnitude", "activation", "random"})
      choices.push_back({name, find_score(name, "").compute({.model = &source, .batches = batches, .seed = seed})});
  }
  /// 0/1 of the same widths as the learned choice.
  at::Tensor hard(const char* name, const std::vector<int64_t>& widths) const {
    for (const Choice& choice : choices)
      if (std::string_view(choice.name) == name) return hard_top_k(choice.scores_LF, widths);
    throw InternalError(std::string("no choice ") + name);
  }
};

/// Warns once of each kind of trouble, or ends the run. A decision that came early is a suspicion, and never ends it.
class CollapseWatch {
 public:
  enum Trouble { undecided, no_better_than_random, early };
  CollapseWatch(std::string stage, bool stops) : stage_(std::move(stage)), stops_(stops) {}
  void found(Trouble trouble, const std::string& reason) {
    if (reason.empty()) return;
    if (stops_ && trouble != early)
      throw DivergedError(fmt::format("stage '{}': {} (on_collapse = \"warn\" goes on)", stage_, reason));
    if (!warned_[trouble]) log_warning(fmt::format("stage '{}': {}", stage_, reason));
    warned_[trouble] = true;
  }

 private:
  std::string stage_;
  bool stops_, warned_[3] = {};
};

/// The channels of each layer that a checkpoint's model has.
std::vector<std::vector<int64_t>> channel_lists(const Json& facts, const std::string& path) {
  std::vector<std::vector<int64_t>> lists;
  for (const Json& layer : array_at(facts, "living", path)) {
    std::vector<int64_t>& list = lists.emplace_back();
    if (!layer.is_array()) throw UserError::bad_file(path, "living: expected an array of channels for each layer");
    for (const Json& channel : layer) list.push_back(channel.is_number_integer() ? channel.get<int64_t>() : -1);
  }
  return lists;
}

}  // namespace

Json run_learn_masks(StageContext& context) {
  const auto& options = context.stage.get<LearnMasksStage>();
  const TrainingOptions& training = options.training;
  LoadedModel source = load_model(context.model_folder(options.from));
  Model& model = source.model;
  const int64_t layers = model.config.num_hidden_layers, channels = model.config.intermediate_size[0],
                kept = context.recipe.models.at(options.target).intermediate_size[0];
  const uint64_t seed = context.recipe.seed;
  const MaskBudget budget{
      .num_kept = kept, .global = options.masks.budget == "global", .round_to = options.masks.round_to};

  const std::vector<Batch> calibration = calibration_batches(context, options.masks.calibration_tokens);
  const OtherChoices others(model, calibration, seed);
  at::Tensor start_LF;
  double start_flops = 0;
  if (options.masks.score_init != "noise") {
    const ScoreRow& row = find_score(options.masks.score_init, context.stage.where);
    start_LF = row.compute({.model = &model, .batches = calibration, .seed = seed});
    start_flops = calibration_flops(model.config, row, options.masks.calibration_tokens);
  }

  model.arena->enable_gradient();
  const int64_t steps = training.steps(), warmup = warmup_steps(training, kPublishedWarmup);
  Optimizer optimizer(training.optimizer, *model.arena, warmup, steps);
  const std::unique_ptr<LearnedMask> learned = find_mask_method(options.masks.mask_method, context.stage.where)
                                                   .make({.options = options.masks,
                                                          .num_layers = layers,
                                                          .num_channels = channels,
                                                          .budget = budget,
                                                          .warmup_steps = warmup,
                                                          .num_steps = steps,
                                                          .seed = seed,
                                                          .start_LF = start_LF});
  const at::Tensor& raw_LF = learned->scores();
  at::Tensor previous_hard_LF = hard_choice(raw_LF, budget).contiguous();
  std::vector<NamedTensor> state = {{"/mask/previous_hard", previous_hard_LF}};
  for (const auto& [name, value] : learned->state()) state.push_back({"/mask/" + name, value});
  Compaction compaction(layers, channels, options.masks.compact_after);
  if (options.masks.compact_after > 0) state.push_back({"/mask/dead_steps", compaction.dead_steps()});
  TrainingSession session(context, training, model, optimizer, {}, 0, state);
  Json extra;
  session.resume(extra, [&](const Json& facts, const std::string& path) {
    if (facts.contains("living")) compaction.restore(channel_lists(facts, path), model, optimizer, path);
  });
  if (extra.contains("score_t")) learned->restore(extra["score_t"].get<int64_t>());

  const auto share = [&](int64_t step) { return static_cast<double>(step) / static_cast<double>(steps); };
  const auto moment_of = [&](int64_t step) {
    return MaskMoment{.step = step, .schedule = mask_schedule(options.masks, share(step), channels, kept)};
  };
  CollapseWatch watch(context.stage.name, options.masks.on_collapse == "stop");
  ZeroGradientWatch zero_scores(fmt::format("stage '{}': the gradient of the mask scores", context.stage.name), steps);
  bool tested = false;
  while (session.step() < session.num_steps()) {
    if (session.step() % training.checkpoint_steps == 0 &&
        compaction.compact(model, optimizer, raw_LF, hard_choice(raw_LF, budget))) {
      extra["living"] = compaction.living();
      log_info(fmt::format("stage '{}' step {}: dead channels left the model, {:.0f} of {} a layer go on",
                           context.stage.name, session.step(), compaction.mean_width(), channels));
    }
    const MaskMoment moment = moment_of(session.step());
    raw_LF.set_requires_grad(true);
    const StepMask trained = learned->training_mask(moment);
    const at::Tensor mask_LF =
        trained.mask_LF.detach().set_requires_grad(true);  // one solve a step, however many micro-batches
    const FfnMasks masks = compaction.masks(mask_LF);
    LossSums sums;
    for (const Batch& batch : session.next_batches()) {
      const Targets targets = session.targets(batch, KdOptions{.teacher_weight = 0}, false).front();
      if (!tested) self_test_loss(model, batch, targets);
      tested = true;
      sums.add(train_micro_batch(model, batch, targets, masks, session.scale()));
    }
    const at::Tensor penalty = learned->penalty(moment);
    const at::Tensor score_grad_LF = learned->score_gradient(trained.mask_LF, mask_LF.grad(), penalty);
    raw_LF.set_requires_grad(false);
    const bool finite = std::isfinite(sums.terms(0).loss) && score_grad_LF.isfinite().all().item<bool>();
    if (options.masks.freeze_weights) model.arena->zero_gradient();
    StepOutcome outcome{.applied = finite, .grad_norm = 0, .lr = 0};
    if (!options.masks.freeze_weights) outcome = optimizer.step(finite);

    const at::Tensor plain_LF =
        learned->evaluates_as_trained() ? trained.plain_LF : learned->evaluation_mask(moment).plain_LF;
    const MaskHealth health = mask_health({.soft_LF = plain_LF,
                                           .raw_LF = raw_LF,
                                           .hard_LF = hard_choice(raw_LF, budget),
                                           .k = moment.schedule.k,
                                           .epsilon = moment.schedule.epsilon,
                                           .global = budget.global});
    if (outcome.applied) learned->step(score_grad_LF, moment);
    std::vector<std::pair<std::string, double>> keys = {{"sparsity", health.sparsity},
                                                        {"k", moment.schedule.k},
                                                        {"top_k_epsilon", moment.schedule.epsilon},
                                                        {"sum_error", health.sum_error},
                                                        {"sharpness", health.sharpness},
                                                        {"saturated_share", health.saturated_share},
                                                        {"outside_share", health.outside_share},
                                                        {"free_share", health.free_share},
                                                        {"border_gap", health.border_gap},
                                                        {"entropy", health.entropy},
                                                        {"score_std", health.score_std},
                                                        {"score_grad_norm", score_grad_LF.norm().item<double>()}};
    compaction.watch(plain_LF);
    if (options.masks.compact_after > 0) keys.emplace_back("ffn_width", compaction.mean_width());
    if (penalty.defined()) keys.emplace_back("penalty", penalty.item<double>());
    const double p = share(session.step() + 1);
    watch.found(CollapseWatch::undecided, mask_collapse(health, p, channels));
    if (moment.schedule.k < static_cast<double>(channels) &&
        p <= options.masks.anneal_end)  // before, no score can move; after, none needs to
      if (const std::string zero = zero_scores.look(score_grad_LF.norm().item<double>(), session.step() + 1);
          !zero.empty())
        log_warning(zero);
    double heldout = std::nan("");
    if (session.wants_heldout()) {
      const std::vector<int64_t> widths = kept_widths(raw_LF, budget);
      const at::Tensor hard_LF = hard_top_k(raw_LF, widths), lambda_LF = learned->evaluation_mask(moment).mask_LF;
      heldout = session.heldout_loss(compaction.masks(lambda_LF));
      const double hard_loss = session.heldout_loss(compaction.masks(hard_LF * lambda_LF));
      // a random choice has to find every channel there
      const double random_loss =
          compaction.has_removed() ? std::nan("") : session.heldout_loss(masks_of(others.hard("random", widths)));
      const double churn = mask_churn(previous_hard_LF, hard_LF);
      keys.insert(keys.end(), {{"heldout_hard_loss", hard_loss}, {"churn", churn}});
      if (!compaction.has_removed()) keys.emplace_back("heldout_random_loss", random_loss);
      for (const OtherChoices::Choice& other : others.choices)
        keys.emplace_back(std::string("overlap_") + other.name,
                          1.0 - mask_churn(hard_LF, hard_top_k(other.scores_LF, widths)));
      for (int64_t layer = 0; layer < layers; ++layer) {
        keys.emplace_back(fmt::format("kept_share.{}", layer), 1.0 - health.layer_sparsity[static_cast<size_t>(layer)]);
        keys.emplace_back(fmt::format("sharpness.{}", layer), health.layer_sharpness[static_cast<size_t>(layer)]);
        keys.emplace_back(fmt::format("churn.{}", layer),
                          mask_churn(previous_hard_LF.narrow(0, layer, 1), hard_LF.narrow(0, layer, 1)));
      }
      if (!learned->keeps_all())
        watch.found(CollapseWatch::no_better_than_random, cut_collapse(hard_loss, random_loss, p));
      if (moment.schedule.k <= static_cast<double>(kept) && !learned->keeps_all())
        watch.found(CollapseWatch::early, early_decision(churn, p));
      previous_hard_LF.copy_(hard_LF);
    }
    extra["score_t"] = learned->t();
    session.end_step(sums, 0.0, outcome, heldout, keys, extra);
  }

  if (compaction.has_removed()) {
    Model whole = load_model(context.model_folder(options.from)).model;
    compaction.expand(model, whole);
    model = std::move(whole);
    if (const int64_t gone = compaction.count_removed(hard_choice(raw_LF, budget)); gone > 0)
      log_warning(
          fmt::format("stage '{}': {} of the kept channels had been removed as dead and come back with the weights "
                      "that '{}' gave them; a larger "
                      "compact_after avoids that",
                      context.stage.name, gone, options.from));
  }
  // The last form of the mask, at p = 1: what the cut merges into the up rows.
  const MaskMoment last = moment_of(steps);
  const StepMask final_mask = learned->evaluation_mask(last);
  const std::vector<int64_t> widths = kept_widths(raw_LF, budget);
  const at::Tensor hard_LF = hard_top_k(raw_LF, widths);
  const double soft_loss = session.heldout_loss(masks_of(final_mask.mask_LF)),
               hard_loss = session.heldout_loss(masks_of(final_mask.mask_LF * hard_LF));
  const double random_loss = session.heldout_loss(masks_of(others.hard("random", widths)));
  if (!learned->keeps_all())
    watch.found(CollapseWatch::no_better_than_random,
                cut_collapse(hard_loss, random_loss, 1.0));  // the only look at it once channels have left
  const MaskHealth health = mask_health({.soft_LF = final_mask.plain_LF,
                                         .raw_LF = raw_LF,
                                         .hard_LF = hard_LF,
                                         .k = last.schedule.k,
                                         .epsilon = last.schedule.epsilon,
                                         .global = budget.global});
  if (budget.global)
    log_info(fmt::format("stage '{}': one budget for all layers leaves widths {}; few other programs open such a model",
                         context.stage.name, fmt::join(widths, ", ")));
  save_model(context.folder() / "model", model, model_facts(context));
  std::string model_sha256;
  load_model_config(context.folder() / "model", &model_sha256);
  save_masks(context.folder() / "masks.h5", {.scores_LF = raw_LF,
                                             .soft_LF = final_mask.mask_LF,
                                             .source_sha256 = model_sha256,
                                             .num_kept = kept,
                                             .epsilon = last.schedule.epsilon,
                                             .kept = widths,
                                             .method = options.masks.mask_method,
                                             .global = budget.global});
  Json body = session.finish();
  body["flops"] = body["flops"].get<double>() + start_flops;
  body["results"] = {{"heldout_soft_loss", soft_loss},
                     {"heldout_hard_loss", hard_loss},
                     {"heldout_random_loss", random_loss},
                     {"sharpness", health.sharpness},
                     {"sum_error", health.sum_error}};
  for (const OtherChoices::Choice& other : others.choices)
    body["results"][std::string("overlap_") + other.name] =
        1.0 - mask_churn(hard_LF, hard_top_k(other.scores_LF, widths));
  return body;
}

}  // namespace coppice
