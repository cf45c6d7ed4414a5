// Ways to learn an FFN mask behind one interface: a file each (mask_<name>.cpp), a row each in the table of
// mask_methods.cpp. A method owns one number a channel (raw scores r, or log alpha) and turns it into multipliers of
// the up output, step by step:
//   mask = training_mask(moment), differentiable;  loss and penalty(moment) go back to scores();  step(gradient);
//   evaluation_mask() is what the cut merges.
// L layers, F channels, K kept. A global budget solves one row of L F instead of L rows of F.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pruning/mask_budget.h"
#include "pruning/mask_options.h"
#include "src/optim/optimizer.h"

namespace coppice {

/// Where in the stage a step stands.
struct MaskMoment {
  int64_t step = 0;  // keys the noise of methods that sample
  MaskSchedule schedule;
};

struct StepMask {
  at::Tensor mask_LF;   // what multiplies the up output
  at::Tensor plain_LF;  // the same before a hard set cut it: its sum is what the budget asks for
};

struct MaskTask {
  MaskOptions options;
  int64_t num_layers = 0, num_channels = 0;
  MaskBudget budget;
  int64_t warmup_steps = 0, num_steps = 0;
  uint64_t seed = 1;
  at::Tensor start_LF;  // a one-shot score to start from; undefined = noise
};

class LearnedMask {
 public:
  LearnedMask(MaskTask task, at::Tensor scores_LF);
  virtual ~LearnedMask() = default;
  LearnedMask(const LearnedMask&) = delete;
  LearnedMask& operator=(const LearnedMask&) = delete;

  /// Differentiable with respect to scores() while they require a gradient.
  virtual StepMask training_mask(const MaskMoment& moment) const = 0;
  /// The mask without noise and without gradient: what is evaluated, saved and merged.
  virtual StepMask evaluation_mask(const MaskMoment& moment) const = 0;
  /// False where the two differ.
  virtual bool evaluates_as_trained() const { return true; }
  /// A term added to the loss, from the scores alone; undefined = none.
  virtual at::Tensor penalty(const MaskMoment&) const { return {}; }
  /// One update from d loss / d scores, penalty included.
  virtual void step(const at::Tensor& grad_LF, const MaskMoment& moment) = 0;
  /// What a checkpoint holds, by name: scores and every moment or multiplier; filled in place on resume, then
  /// restore(t).
  virtual std::vector<std::pair<std::string, at::Tensor>> state() const = 0;
  virtual int64_t t() const = 0;
  virtual void restore(int64_t t) = 0;

  /// Raw scores r (or log alpha) [L, F]: they rank the channels. A leaf without gradient between steps.
  const at::Tensor& scores() const { return scores_LF_; }
  const MaskTask& task() const { return task_; }
  /// True where the budget leaves nothing to decide: every mask is exactly 1, and the cut is the identity.
  bool keeps_all() const { return task_.budget.num_kept >= task_.num_channels; }
  /// 0/1 of the channels that a mask of size k may keep: the budget's choice, or while k ramps the ceil(k) best.
  at::Tensor top_set(double k) const;
  /// d loss / d scores [L, F], zero where no way leads back: from the mask that training_mask gave, d loss / d mask (on
  /// any device), and penalty(). Clears their gradient.
  at::Tensor score_gradient(const at::Tensor& mask_LF, const at::Tensor& mask_grad_LF, const at::Tensor& penalty);

 protected:
  StepMask all_ones() const;
  /// L rows of F, or one row of L F under a global budget; k of such a row.
  at::Tensor rows(const at::Tensor& value_LF) const;
  double row_k(double k) const;

  MaskTask task_;
  at::Tensor scores_LF_;
};

/// Masks from scores under Adam, by a function of the scaled scores: soft_top_k, coordinate_descent, straight_through.
class ScoreMask : public LearnedMask {
 public:
  struct Row {             // R rows of N channels
    at::Tensor scaled_RN;  // differentiable
    at::Tensor top_RN;     // top_set of this k, for those that ask for it
    double k = 0, epsilon = 0;
  };
  using Solve = at::Tensor (*)(const Row& row, const MaskOptions& options);
  ScoreMask(const MaskTask& task, Solve solve, bool needs_top = false);

  StepMask training_mask(const MaskMoment& moment) const override;
  StepMask evaluation_mask(const MaskMoment& moment) const override;
  void step(const at::Tensor& grad_LF, const MaskMoment& moment) override;
  std::vector<std::pair<std::string, at::Tensor>> state() const override;
  int64_t t() const override { return optimizer_.t(); }
  void restore(int64_t t) override { optimizer_.restore(t); }

 private:
  Solve solve_;
  bool needs_top_;
  ScoreOptimizer optimizer_;
};

struct MaskMethodRow {
  const char* name;
  const char* help;
  bool meets_budget;  // the mask sums to k at every step
  bool compacts;      // a mask at 0 stays there: the gradient of its score vanishes with it
  std::unique_ptr<LearnedMask> (*make)(const MaskTask& task);
};
std::span<const MaskMethodRow> mask_method_table();
/// UserError::recipe(where) with the nearest name when unknown.
const MaskMethodRow& find_mask_method(const std::string& name, const std::string& where);

std::unique_ptr<LearnedMask> make_soft_top_k(const MaskTask& task);
std::unique_ptr<LearnedMask> make_coordinate_descent(const MaskTask& task);
std::unique_ptr<LearnedMask> make_straight_through(const MaskTask& task);
std::unique_ptr<LearnedMask> make_hard_concrete(const MaskTask& task);

// -- the formulas alone, for golden values --
/// The dual loop of CoDA (arXiv 2304.04947) on each row: `rounds` of a <- e log k - e LSE((s + b)/e), b <- min(-(s +
/// a), 0); lambda = exp((s + a + b)/e). e is epsilon, or with `scaled` max(epsilon, 4 0.7^round). Unconverged it misses
/// k; the gradient is that of the unrolled loop.
at::Tensor coordinate_descent(const at::Tensor& scores_RN, double k, double epsilon, int64_t rounds, bool scaled,
                              bool start_minus_s);

/// Constants of a HardConcrete convention: temperature and the offset in P(z != 0) = sigmoid(log alpha + offset).
struct HardConcreteRule {
  const char* name;
  double beta = 0, offset = 0;
};
const HardConcreteRule& hard_concrete_rule(const std::string& name);  // llm_shearing, l0, flop
/// z = clip(1.2 sigmoid((log u - log(1-u) + log alpha)/beta) - 0.1, 0, 1).
at::Tensor hard_concrete_sample(const HardConcreteRule& rule, const at::Tensor& loga_RN, const at::Tensor& u_RN);
at::Tensor hard_concrete_alive(const HardConcreteRule& rule, const at::Tensor& loga_RN);
/// Gates without noise: l0 clips the stretched sigmoid; the others take sigmoid(0.8 log alpha / beta) and set all but
/// `num_alive[row]` to 0.
at::Tensor hard_concrete_evaluate(const HardConcreteRule& rule, const at::Tensor& loga_RN,
                                  const std::vector<int64_t>& num_alive);
/// sum over rows of lambda1 (s - t) + lambda2 (s - t)^2, s = 1 - mean of alive, multipliers [2, R].
at::Tensor hard_concrete_penalty(const HardConcreteRule& rule, const at::Tensor& loga_RN,
                                 const at::Tensor& multiplier_2R, double target);

}  // namespace coppice
