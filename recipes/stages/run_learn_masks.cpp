// learn_masks: masks over the units of an axis, learned together with the weights on the next-token loss; the method is
// a row of the table of mask methods. A step: mask from scores -> masked forward and backward -> weights move,
// meanwhile the mask's health -> scores move. p = share of the steps done.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "pruning/compaction.h"
#include "pruning/mask_file.h"
#include "pruning/mask_health.h"
#include "pruning/mask_methods.h"
#include "pruning/scores.h"
#include "recipes/stages/calibration.h"
#include "recipes/stages/cut_target.h"
#include "recipes/stages/learn_masks.h"
#include "recipes/stages/mask_watch.h"
#include "recipes/stages/training.h"
#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/log.h"
#include "src/checkpoint/checkpoint.h"
#include "src/tensors/transfers.h"
#include "student/self_test.h"

namespace coppice {
namespace {

constexpr int64_t kPublishedWarmup = 1000;

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

/// Masks as the model takes them. `apart`: cut from what made them, where the way back from there can be walked but
/// once, and several micro-batches add to their gradient.
class MaskLeaves {
 public:
  MaskLeaves(DecoderMasks made, bool apart) : made_(std::move(made)), apart_(apart) {
    if (!apart_) return;
    for (const auto member : {&DecoderMasks::multiplier_F, &DecoderMasks::multiplier_G})
      for (const at::Tensor& mask : made_.*member) (leaves_.*member).push_back(mask.detach().set_requires_grad(true));
  }
  const DecoderMasks& masks() const { return apart_ ? leaves_ : made_; }
  void walk_back() const {
    if (!apart_) return;
    at::Tensor sum;  // what it adds up to is nothing; its gradient by each mask is the leaf's
    for (const auto member : {&DecoderMasks::multiplier_F, &DecoderMasks::multiplier_G})
      for (size_t layer = 0; layer < (made_.*member).size(); ++layer) {
        const at::Tensor term = ((made_.*member)[layer] * (leaves_.*member)[layer].grad()).sum();
        sum = sum.defined() ? sum + term : term;
      }
    sum.backward();
  }

 private:
  DecoderMasks made_, leaves_;
  bool apart_;
};

/// Everything that a stage learns masks with, in the order in which it is made.
class MaskLearning {
 public:
  explicit MaskLearning(StageContext& context);
  void step();
  /// The last form of the mask, the model and their files; returns the body of the manifest.
  Json finish();
  bool done() const { return training_.state.step >= steps_; }

 private:
  using Keys = std::vector<std::pair<std::string, double>>;
  double share(int64_t step) const { return static_cast<double>(step) / static_cast<double>(steps_); }
  MaskMoment moment_of(int64_t step) const {
    return {.step = step, .schedule = mask_schedule(options_.masks, share(step), channels_, kept_)};
  }
  std::unique_ptr<LearnedMask> make_mask();
  Optimizer make_optimizer();
  std::vector<NamedTensor> state() const;
  /// At a checkpoint step dead channels leave the model, so that a resumed run has them leave at the same step.
  void compact();
  /// In place of the optimizer, in a step that moves scores alone.
  void hold_still(StepVote& vote);
  StepOutcome held_still(const StepVote& vote) const;
  /// A table of multipliers where the model computes.
  at::Tensor on_device(const at::Tensor& mask_LF) const { return sent(mask_LF, model_.arena->placement().device); }
  /// The same as the model takes it now.
  DecoderMasks model_masks(const at::Tensor& mask) const {
    const at::Tensor mask_LF = on_device(mask);
    return axis_ == CutAxis::ffn ? compaction_.masks(mask_LF) : masks_on(axis_, mask_LF, model_.config);
  }
  MaskHealth health_of(const MaskMoment& moment, const at::Tensor& plain_LF, const at::Tensor& hard_LF) const;
  /// What a step says of its mask, from the scores that it began with.
  struct Looked {
    at::Tensor plain_LF;
    MaskHealth health;
  };
  Looked look_at_scores(const MaskMoment& moment, const StepMask& trained) const;
  /// Warns of scores that do not move and of masks that do not decide.
  void watch_step(const MaskMoment& moment, const MaskHealth& health, double score_grad_norm);
  /// The held-out loss under the soft mask; adds keys for the learned cut, a random one, and what each layer keeps.
  double look(const MaskMoment& moment, const MaskHealth& health, Keys& keys);
  /// Whether the learned cut is better than a random one; where few units make the two the same, nothing is asked.
  void watch_cut(const at::Tensor& hard_LF, const at::Tensor& random_LF, double hard_loss, double random_loss,
                 double p);
  /// The model with every channel, where some had left.
  void bring_back();

  StageContext& context_;
  const LearnMasksStage& options_;
  const CutAxis axis_;
  Model model_;
  const int64_t steps_, layers_, channels_, kept_;  // rows and units of the axis
  const MaskBudget budget_;
  const std::vector<Batch> calibration_;
  const OtherChoices others_;
  double start_flops_ = 0;  // of the score that the masks start from
  std::unique_ptr<LearnedMask> learned_;
  Optimizer optimizer_;
  at::Tensor previous_hard_LF_;
  Compaction compaction_;
  Training training_;
  Json extra_;
  CollapseWatch watch_;
  ZeroGradientWatch zero_scores_;
  bool tested_ = false;
};

MaskLearning::MaskLearning(StageContext& context)
    : context_(context),
      options_(context.stage.get<LearnMasksStage>()),
      axis_(axis_of(options_.axis)),
      model_(load_model(context.model_folder(options_.from), place_trained(context)).model),
      steps_(options_.training.steps()),
      layers_(std::ssize(units_of(model_.config, axis_))),
      channels_(units_of(model_.config, axis_).front()),
      kept_(units_of(context.recipe.models.at(options_.target), axis_).front()),
      budget_{.num_kept = kept_, .global = options_.masks.budget == "global", .round_to = options_.masks.round_to},
      calibration_(calibration_batches(context, options_.masks.calibration_tokens)),
      others_(model_, calibration_, context.recipe.seed, axis_),
      learned_(make_mask()),
      optimizer_(make_optimizer()),
      previous_hard_LF_(hard_choice(learned_->scores(), budget_).contiguous()),
      compaction_(layers_, channels_, options_.masks.compact_after),
      training_(context, options_.training, model_, optimizer_, {}, state()),
      watch_(context.stage.name, options_.masks.on_collapse == "stop", axis_),
      zero_scores_(fmt::format("stage '{}': the gradient of the mask scores", context.stage.name), steps_) {
  extra_ = training_.resume([&](const Json& facts, const std::string& path) {
    if (facts.contains("living")) compaction_.restore(channel_lists(facts, path), model_, optimizer_, path);
  });
  if (extra_.contains("score_t")) learned_->restore(extra_["score_t"].get<int64_t>());
}

std::unique_ptr<LearnedMask> MaskLearning::make_mask() {
  at::Tensor start_LF;
  if (options_.masks.score_init != "noise") {
    const ScoreRow& row = find_score(options_.masks.score_init, context_.stage.where);
    start_LF = row.compute({.model = &model_, .batches = calibration_, .seed = context_.recipe.seed, .axis = axis_});
    start_flops_ = calibration_flops(model_.config, row, options_.masks.calibration_tokens);
  }
  return find_mask_method(options_.masks.mask_method, context_.stage.where)
      .make({.options = options_.masks,
             .num_layers = layers_,
             .num_channels = channels_,
             .budget = budget_,
             .warmup_steps = warmup_steps(options_.training, kPublishedWarmup),
             .num_steps = steps_,
             .seed = context_.recipe.seed,
             .start_LF = start_LF});
}

Optimizer MaskLearning::make_optimizer() {
  model_.arena->enable_gradient();  // not before: scores are measured on a model that only runs forward
  return {options_.training.optimizer, *model_.arena, warmup_steps(options_.training, kPublishedWarmup), steps_};
}

std::vector<NamedTensor> MaskLearning::state() const {
  std::vector<NamedTensor> state = {{"/mask/previous_hard", previous_hard_LF_}};
  for (const auto& [name, value] : learned_->state()) state.push_back({"/mask/" + name, value});
  if (options_.masks.compact_after > 0) state.push_back({"/mask/dead_steps", compaction_.dead_steps()});
  return state;
}

void MaskLearning::compact() {
  const at::Tensor& raw_LF = learned_->scores();
  if (training_.state.step % options_.training.checkpoint_steps != 0 ||
      !compaction_.compact(model_, optimizer_, raw_LF, hard_choice(raw_LF, budget_)))
    return;
  extra_["living"] = compaction_.living();
  log_info(fmt::format("stage '{}' step {}: dead channels left the model, {:.0f} of {} a layer go on",
                       context_.stage.name, training_.state.step, compaction_.mean_width(), channels_));
}

MaskHealth MaskLearning::health_of(const MaskMoment& moment, const at::Tensor& plain_LF,
                                   const at::Tensor& hard_LF) const {
  return mask_health({.soft_LF = plain_LF,
                      .raw_LF = learned_->scores(),
                      .hard_LF = hard_LF,
                      .k = moment.schedule.k,
                      .epsilon = moment.schedule.epsilon,
                      .global = budget_.global});
}

MaskLearning::Looked MaskLearning::look_at_scores(const MaskMoment& moment, const StepMask& trained) const {
  const at::NoGradGuard no_grad;
  const at::Tensor plain_LF =
      learned_->evaluates_as_trained() ? trained.plain_LF : learned_->evaluation_mask(moment).plain_LF;
  return {plain_LF, health_of(moment, plain_LF, hard_choice(learned_->scores(), budget_))};
}

void MaskLearning::hold_still(StepVote& vote) {
  model_.arena->zero_gradient();
  sum_over(context_.comm, vote.values, "the vote of the step");
}

StepOutcome MaskLearning::held_still(const StepVote& vote) const {
  return {.applied = vote.values[StepVote::not_finite].item<double>() == 0, .grad_norm = 0, .lr = 0};
}

void MaskLearning::step() {
  compact();
  const MaskMoment moment = moment_of(training_.state.step);
  const at::Tensor& raw_LF = learned_->scores();
  raw_LF.set_requires_grad(true);
  const StepMask trained = learned_->training_mask(moment);
  const at::Tensor mask_LF =
      on_device(trained.mask_LF.detach()).set_requires_grad(true);  // one solve a step, however many micro-batches
  const MaskLeaves leaves(model_masks(mask_LF), /*apart=*/compaction_.mean_width() < static_cast<double>(channels_));
  const std::vector<Batch>& batches = training_.begin_step();
  const auto targets_of = [&](const Batch& batch) {
    return std::vector<Targets>{make_targets(
        batch, {},
        {.teacher_weight = 0, .z_loss = options_.training.z_loss, .float_logits = options_.training.float_logits})};
  };
  if (!tested_) self_test_loss(model_, batches.front(), targets_of(batches.front()).front(), head_loss, leaves.masks());
  tested_ = true;
  StepSums step_sums = accumulate_gradient(model_, batches, targets_of, leaves.masks(), training_.samples.scale(),
                                           head_loss, context_.recompute);
  leaves.walk_back();
  const at::Tensor penalty = learned_->penalty(moment);
  at::Tensor mask_grad_LF = mask_LF.grad();  // scores are the host's: it comes with what else is read
  StepVote vote = training_.vote();
  vote.count_finite(step_sums.values());
  vote.count_finite(mask_grad_LF);
  if (options_.masks.freeze_weights)
    hold_still(vote);
  else
    optimizer_.begin_step(context_.comm, vote);
  Fetch fetch({&vote.values, &step_sums.values(), &mask_grad_LF});
  training_.read_ahead();
  const Looked looked = look_at_scores(moment, trained);  // while a device still computes
  fetch.wait();                                           // for a device: the one time in a step
  StepOutcome outcome = options_.masks.freeze_weights ? held_still(vote) : optimizer_.end_step(vote);
  const LossSums sums = step_sums.read();
  const at::Tensor score_grad_LF = learned_->score_gradient(trained.mask_LF, mask_grad_LF, penalty);
  raw_LF.set_requires_grad(false);
  if (COPPICE_FAILPOINT("masks.score_gradient")) score_grad_LF.fill_(std::nan(""));
  if (outcome.applied && !score_grad_LF.isfinite().all().item<bool>()) {
    log_warning(
        fmt::format("stage '{}' step {}: the gradient of the scores is not finite; they stay as they were{}, and "
                    "the step counts as skipped",
                    context_.stage.name, training_.state.step + 1,
                    options_.masks.freeze_weights ? "" : ", the weights have moved"));
    outcome.applied = false;
  }

  const MaskHealth& health = looked.health;
  if (outcome.applied) learned_->step(score_grad_LF, moment);
  const auto score_grad_norm = score_grad_LF.norm().item<double>();
  Keys keys = {{"sparsity", health.sparsity},
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
               {"score_grad_norm", score_grad_norm}};
  compaction_.watch(looked.plain_LF);
  if (options_.masks.compact_after > 0) keys.emplace_back("ffn_width", compaction_.mean_width());
  if (penalty.defined()) keys.emplace_back("penalty", penalty.item<double>());
  watch_step(moment, health, score_grad_norm);
  const double heldout = training_.heldout.due(training_.state.step + 1) ? look(moment, health, keys) : std::nan("");
  extra_["score_t"] = learned_->t();
  training_.end_step({.sums = sums, .outcome = outcome, .heldout = heldout, .extra = keys}, vote, extra_);
}

void MaskLearning::watch_step(const MaskMoment& moment, const MaskHealth& health, double score_grad_norm) {
  const int64_t step = training_.state.step + 1;
  watch_.found(CollapseWatch::undecided, mask_collapse(health, share(step), channels_, axis_));
  // before, no score can move; after, none needs to
  if (moment.schedule.k < static_cast<double>(channels_) && share(step) <= options_.masks.anneal_end)
    if (const std::string zero = zero_scores_.look(score_grad_norm, step); !zero.empty()) log_warning(zero);
}

double MaskLearning::look(const MaskMoment& moment, const MaskHealth& health, Keys& keys) {
  const double p = share(training_.state.step + 1);
  const std::vector<int64_t> widths = kept_widths(learned_->scores(), budget_);
  const at::Tensor hard_LF = hard_top_k(learned_->scores(), widths),
                   lambda_LF = learned_->evaluation_mask(moment).mask_LF;
  const double soft_loss = training_.heldout.loss(model_, model_masks(lambda_LF));
  const double hard_loss = training_.heldout.loss(model_, model_masks(hard_LF * lambda_LF));
  const at::Tensor random_LF = others_.hard("random", widths);
  // a random choice has to find every channel there
  const double random_loss =
      compaction_.has_removed() ? std::nan("") : training_.heldout.loss(model_, model_masks(random_LF));
  const double churn = mask_churn(previous_hard_LF_, hard_LF);
  keys.insert(keys.end(), {{"heldout_hard_loss", hard_loss}, {"churn", churn}});
  if (!compaction_.has_removed()) keys.emplace_back("heldout_random_loss", random_loss);
  for (const OtherChoices::Choice& other : others_.choices)
    keys.emplace_back(std::string("overlap_") + other.name,
                      1.0 - mask_churn(hard_LF, hard_top_k(other.scores_LF, widths)));
  for (int64_t layer = 0; layer < layers_; ++layer) {
    keys.emplace_back(fmt::format("kept_share.{}", layer), 1.0 - health.layer_sparsity[static_cast<size_t>(layer)]);
    keys.emplace_back(fmt::format("sharpness.{}", layer), health.layer_sharpness[static_cast<size_t>(layer)]);
    keys.emplace_back(fmt::format("churn.{}", layer),
                      mask_churn(previous_hard_LF_.narrow(0, layer, 1), hard_LF.narrow(0, layer, 1)));
  }
  watch_cut(hard_LF, random_LF, hard_loss, random_loss, p);
  // sets of a few units often stand still, and it says nothing of them
  if (axis_ == CutAxis::ffn && moment.schedule.k <= static_cast<double>(kept_) && !learned_->keeps_all())
    watch_.found(CollapseWatch::early, early_decision(churn, p));
  previous_hard_LF_.copy_(hard_LF);
  return soft_loss;
}

void MaskLearning::watch_cut(const at::Tensor& hard_LF, const at::Tensor& random_LF, double hard_loss,
                             double random_loss, double p) {
  const bool same_by_chance = axis_ != CutAxis::ffn && at::equal(hard_LF, random_LF);
  if (learned_->keeps_all() || same_by_chance) return;
  watch_.found(CollapseWatch::no_better_than_random, cut_collapse(hard_loss, random_loss, p));
}

void MaskLearning::bring_back() {
  if (!compaction_.has_removed()) return;
  Model whole = load_model(context_.model_folder(options_.from), model_.arena->placement()).model;
  compaction_.expand(model_, whole);
  model_ = std::move(whole);
  if (const int64_t gone = compaction_.count_removed(hard_choice(learned_->scores(), budget_)); gone > 0)
    log_warning(
        fmt::format("stage '{}': {} of the kept channels had been removed as dead and come back with the weights that "
                    "'{}' gave them; a larger compact_after avoids that",
                    context_.stage.name, gone, options_.from));
}

Json MaskLearning::finish() {
  bring_back();
  // The last form of the mask, at p = 1: what the cut merges into the up rows.
  const MaskMoment last = moment_of(steps_);
  const StepMask final_mask = learned_->evaluation_mask(last);
  const at::Tensor& raw_LF = learned_->scores();
  const std::vector<int64_t> widths = kept_widths(raw_LF, budget_);
  const at::Tensor hard_LF = hard_top_k(raw_LF, widths);
  const Heldout& heldout = training_.heldout;
  const at::Tensor random_LF = others_.hard("random", widths);
  const auto whole_loss = [&](const at::Tensor& mask_LF) {
    return heldout.loss(model_, masks_on(axis_, on_device(mask_LF), model_.config));
  };
  const double soft_loss = whole_loss(final_mask.mask_LF), hard_loss = whole_loss(final_mask.mask_LF * hard_LF),
               random_loss = whole_loss(random_LF);
  watch_cut(hard_LF, random_LF, hard_loss, random_loss, 1.0);  // the only look at it once channels have left
  const MaskHealth health = health_of(last, final_mask.plain_LF, hard_LF);
  if (budget_.global)
    log_info(fmt::format("stage '{}': one budget for all layers leaves widths {}; few other programs open such a model",
                         context_.stage.name, fmt::join(widths, ", ")));
  save_model(context_.folder() / "model", model_, model_facts(context_));
  std::string model_sha256;
  load_model_config(context_.folder() / "model", &model_sha256);
  save_masks(context_.folder() / "masks.h5", {.scores_LF = raw_LF,
                                              .soft_LF = final_mask.mask_LF,
                                              .source_sha256 = model_sha256,
                                              .num_kept = kept_,
                                              .epsilon = last.schedule.epsilon,
                                              .kept = widths,
                                              .method = options_.masks.mask_method,
                                              .global = budget_.global,
                                              .axis = axis_});
  Json body = training_.finish();
  body["flops"] = body["flops"].get<double>() + start_flops_;
  body["results"] = {{"heldout_soft_loss", soft_loss},
                     {"heldout_hard_loss", hard_loss},
                     {"heldout_random_loss", random_loss},
                     {"sharpness", health.sharpness},
                     {"sum_error", health.sum_error}};
  for (const OtherChoices::Choice& other : others_.choices)
    body["results"][std::string("overlap_") + other.name] =
        1.0 - mask_churn(hard_LF, hard_top_k(other.scores_LF, widths));
  return body;
}

}  // namespace

Json run_learn_masks(StageContext& context) {
  MaskLearning learning(context);
  while (!learning.done()) learning.step();
  return learning.finish();
}

}  // namespace coppice
