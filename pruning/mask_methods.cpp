#include "pruning/mask_methods.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "pruning/soft_masks.h"
#include "src/base/errors.h"
#include "src/base/nearest.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr MaskMethodRow kMethods[] = {
    {.name = "soft_top_k",
     .help = "exact Soft-Top-K: sums to k at every step",
     .meets_budget = true,
     .compacts = true,
     .make = make_soft_top_k},
    {.name = "coordinate_descent",
     .help = "the unrolled dual loop of CoDA; unconverged it misses k",
     .meets_budget = false,
     .compacts = true,
     .make = make_coordinate_descent},
    {.name = "hard_concrete",
     .help = "sampled L0 gates under a Lagrangian (Sheared-LLaMA, L0, FLOP)",
     .meets_budget = false,
     .compacts = false,
     .make = make_hard_concrete},
    {.name = "straight_through",
     .help = "hard top-k forward, identity gradient",
     .meets_budget = false,
     .compacts = false,
     .make = make_straight_through},
};

at::Tensor start_scores(const MaskTask& task) {
  if (!task.start_LF.defined())
    return initial_scores(task.num_layers, task.num_channels, task.options.score_init_std, task.seed);
  check_shape(task.start_LF, {task.num_layers, task.num_channels}, "start_LF");
  return standardise_scores(task.start_LF).to(at::kFloat).contiguous();
}

}  // namespace

std::span<const MaskMethodRow> mask_method_table() { return kMethods; }

const MaskMethodRow& find_mask_method(const std::string& name, const std::string& where) {
  std::vector<std::string> known;
  for (const MaskMethodRow& row : kMethods) {
    if (row.name == name) return row;
    known.emplace_back(row.name);
  }
  throw UserError::recipe(where, fmt::format("mask_method: got '{}', expected {}; did you mean '{}'?", printable(name),
                                             fmt::join(known, ", "), nearest(name, known)));
}

LearnedMask::LearnedMask(MaskTask task, at::Tensor scores_LF)
    : task_(std::move(task)), scores_LF_(std::move(scores_LF)) {
  check_shape(scores_LF_, {task_.num_layers, task_.num_channels}, "scores_LF");
}

at::Tensor LearnedMask::top_set(double k) const {
  if (k <= static_cast<double>(task_.budget.num_kept)) return hard_choice(scores_LF_, task_.budget);
  const at::Tensor scores_RN = rows(scores_LF_.detach());
  return hard_top_k(scores_RN, std::min(scores_RN.size(1), static_cast<int64_t>(std::ceil(row_k(k)))))
      .view({task_.num_layers, task_.num_channels});
}

at::Tensor LearnedMask::score_gradient(const at::Tensor& mask_LF, const at::Tensor& mask_grad_LF,
                                       const at::Tensor& penalty) {
  // at k = F every gate is saturated and no score moves
  if (mask_grad_LF.defined() && mask_LF.requires_grad()) mask_LF.backward(mask_grad_LF.to(mask_LF.device()));
  if (penalty.defined() && penalty.requires_grad()) penalty.backward();
  const at::Tensor grad_LF = scores_LF_.grad();
  scores_LF_.mutable_grad() = at::Tensor();
  return grad_LF.defined() ? grad_LF : at::zeros_like(scores_LF_, scores_LF_.options().requires_grad(false));
}

StepMask LearnedMask::all_ones() const {
  const at::Tensor ones_LF = at::ones({task_.num_layers, task_.num_channels}, at::kFloat);
  return {.mask_LF = ones_LF, .plain_LF = ones_LF};
}

at::Tensor LearnedMask::rows(const at::Tensor& value_LF) const {
  return task_.budget.global ? value_LF.reshape({1, -1}) : value_LF;
}

double LearnedMask::row_k(double k) const {
  return task_.budget.global ? k * static_cast<double>(task_.num_layers) : k;
}

ScoreMask::ScoreMask(const MaskTask& task, Solve solve, bool needs_top)
    : LearnedMask(task, start_scores(task)),
      solve_(solve),
      needs_top_(needs_top),
      optimizer_(scores_LF_, task.options.score_lr, 0.9, 0.95, task.warmup_steps, task.num_steps) {}

StepMask ScoreMask::training_mask(const MaskMoment& moment) const {
  const MaskSchedule& schedule = moment.schedule;
  const at::Tensor raw_RN = rows(scores_LF_);
  if (row_k(schedule.k) >= static_cast<double>(raw_RN.size(1))) return all_ones();  // nothing to choose
  // The set goes by raw score, as the plan does: scaling may round two scores into a tie.
  const at::Tensor top_LF = schedule.top || needs_top_ ? top_set(schedule.k) : at::Tensor();
  const at::Tensor scaled_RN = task_.options.score_scale == "raw" ? raw_RN : standardise_scores(raw_RN);
  const at::Tensor plain_RN = solve_({.scaled_RN = scaled_RN,
                                      .top_RN = top_LF.defined() ? rows(top_LF) : top_LF,
                                      .k = row_k(schedule.k),
                                      .epsilon = schedule.epsilon},
                                     task_.options);
  const at::Tensor plain_LF = plain_RN.view({task_.num_layers, task_.num_channels});
  return {.mask_LF = schedule.top ? plain_LF * top_LF : plain_LF, .plain_LF = plain_LF.detach()};
}

StepMask ScoreMask::evaluation_mask(const MaskMoment& moment) const {
  c10::NoGradGuard no_grad;
  return training_mask(moment);
}

void ScoreMask::step(const at::Tensor& grad_LF, const MaskMoment&) { optimizer_.step(grad_LF); }

std::vector<std::pair<std::string, at::Tensor>> ScoreMask::state() const {
  return {{"scores", scores_LF_}, {"m", optimizer_.first_moment()}, {"v", optimizer_.second_moment()}};
}

}  // namespace coppice
