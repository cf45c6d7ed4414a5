// A step of recipes/stages/run_learn_masks.cpp between two looks at held-out text, at a given share of the stage: mask
// from scores, masked forward and backward, weights move, meanwhile the mask's health, scores move, dead channels are
// counted.
#pragma once

#include <cmath>
#include <memory>

#include "pruning/compaction.h"
#include "pruning/mask_health.h"
#include "pruning/mask_methods.h"
#include "src/base/errors.h"
#include "src/tensors/transfers.h"
#include "student/targets.h"

namespace coppice::bench {

class MaskStep {
 public:
  /// Scores start from start_LF, standardised. `after_steps`: of Compaction; 0 = nothing leaves.
  MaskStep(const at::Tensor& start_LF, int64_t kept, double p, int64_t after_steps = 0)
      : p_(p),
        channels_(start_LF.size(1)),
        budget_{.num_kept = kept},
        moment_{.step = 0, .schedule = mask_schedule({}, p, channels_, kept)},
        learned_(find_mask_method("soft_top_k", "")
                     .make({.options = {},
                            .num_layers = start_LF.size(0),
                            .num_channels = channels_,
                            .budget = budget_,
                            .warmup_steps = 10,
                            .num_steps = 1000000,
                            .seed = 1,
                            .start_LF = start_LF})),
        compaction_(start_LF.size(0), channels_, after_steps) {}

  void run(Model& model, Optimizer& optimizer, const Batch& batch, Recompute recompute = Recompute::none) {
    const at::Tensor& raw_LF = learned_->scores();
    raw_LF.set_requires_grad(true);
    const StepMask trained = learned_->training_mask(moment_);
    const at::Device device = model.arena->placement().device;
    const at::Tensor mask_LF = sent(trained.mask_LF.detach(), device).set_requires_grad(true);
    StepSums sums = train_micro_batch(model, batch, std::vector{make_targets(batch, {}, {})},
                                      compaction_.masks(mask_LF), gradient_scale(batch.num_live), head_loss, recompute);
    at::Tensor mask_grad_LF = mask_LF.grad();
    StepVote vote(0, device);
    vote.count_finite(sums.values());
    vote.count_finite(mask_grad_LF);
    optimizer.begin_step(*alone(), vote);
    Fetch fetch({&vote.values, &sums.values(), &mask_grad_LF});
    const MaskHealth health = mask_health({.soft_LF = trained.plain_LF,
                                           .raw_LF = raw_LF,
                                           .hard_LF = hard_choice(raw_LF.detach(), budget_),
                                           .k = moment_.schedule.k,
                                           .epsilon = moment_.schedule.epsilon});
    fetch.wait();
    COPPICE_CHECK(optimizer.end_step(vote).applied, "step skipped");
    const at::Tensor score_grad_LF = learned_->score_gradient(trained.mask_LF, mask_grad_LF, {});
    raw_LF.set_requires_grad(false);
    learned_->step(score_grad_LF, moment_);
    COPPICE_CHECK(std::isfinite(score_grad_LF.norm().item<double>()) && mask_collapse(health, p_, channels_).empty(),
                  "the mask is broken");
    compaction_.watch(trained.plain_LF);
  }
  /// Removes what has been dead long enough; true when anything left.
  bool compact(Model& model, Optimizer& optimizer) {
    return compaction_.compact(model, optimizer, learned_->scores(), hard_choice(learned_->scores(), budget_));
  }

 private:
  double p_;
  int64_t channels_;
  MaskBudget budget_;
  MaskMoment moment_;
  std::unique_ptr<LearnedMask> learned_;
  Compaction compaction_;
};

}  // namespace coppice::bench
