#include "src/optim/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "src/base/errors.h"
#include "src/base/nearest.h"
#include "src/optim/optimizer_step.h"
#include "src/tensors/shape.h"

namespace coppice {

namespace {

/// A block holds either norm weights or matrices.
bool is_norm_block(const ArenaLayout& layout, const ArenaBlock& block) {
  for (const ArenaEntry& entry : layout.entries)
    if (entry.offset == block.offset) return entry.is_norm();
  throw InternalError(fmt::format("block {} begins with no parameter", block.name));
}

}  // namespace

void check_optimizer_options(const OptimizerOptions& options,
                             const std::function<std::string(const char* key)>& where) {
  const auto require = [&](bool holds, const char* key, const auto& got, const char* expected) {
    if (!holds) throw UserError::recipe(where(key), fmt::format("{}: got {}, expected {}", key, got, expected));
  };
  const std::vector<std::string> names{"adastar", "adamw"};
  if (std::ranges::find(names, options.optimizer) == names.end())
    throw UserError::recipe(
        where("optimizer"),
        fmt::format("optimizer: got '{}', expected one of: {}; did you mean '{}'?", printable(options.optimizer),
                    fmt::join(names, ", "), nearest(options.optimizer, names)));
  require(options.lr > 0 && std::isfinite(options.lr), "lr", options.lr, "a positive number");
  for (const auto& [key, value] :
       {std::pair{"beta_1", options.beta_1}, {"beta_2", options.beta_2}, {"weight_decay", options.weight_decay}})
    require(value >= 0 && value < 1, key, value, "at least 0 and below 1");
  for (const auto& [key, value] :
       {std::pair{"max_grad_norm", options.max_grad_norm}, {"drop_grad_norm", options.drop_grad_norm}})
    require(value > 0, key, value, "above 0");
  require(options.final_lr_ratio >= 0 && options.final_lr_ratio <= 1, "final_lr_ratio", options.final_lr_ratio,
          "0 to 1");
  require(options.warmup_steps >= -1, "warmup_steps", options.warmup_steps, "0 or more, or -1");
}

double schedule_factor(int64_t t, int64_t warmup, int64_t total, double final_ratio) {
  if (t < warmup) return static_cast<double>(t) / static_cast<double>(warmup);
  const int64_t span = total - warmup;
  if (span <= 0) return t <= warmup ? 1.0 : final_ratio;  // nothing but warm-up
  const double share = static_cast<double>(std::min(t - warmup, span)) / static_cast<double>(span);
  return final_ratio + (1.0 - final_ratio) * 0.5 * (1.0 + std::cos(std::numbers::pi * share));
}

Optimizer::Optimizer(const OptimizerOptions& options, ParameterArena& arena, int64_t warmup_steps, int64_t total_steps)
    : options_(options), arena_(&arena), warmup_(warmup_steps), total_(total_steps), slot_names_{"v", "m"} {
  check_optimizer_options(options_, [](const char*) { return std::string(); });
  COPPICE_CHECK(warmup_ >= 0 && total_ >= 0, fmt::format("warm-up {} of {} steps", warmup_, total_));
  for (const std::string& name : slot_names_) slots_.push_back(arena.make_slot("optimizer slot " + name));
}

Optimizer::Optimizer(const Optimizer& like, ParameterArena& arena)
    : Optimizer(like.options_, arena, like.warmup_, like.total_) {
  restore(like.t_, like.skipped_);
}

StepOutcome Optimizer::step(bool extra_finite) {
  COPPICE_CHECK(arena_->has_gradient(), "the arena has no gradient; enable_gradient() was not called");
  const at::NoGradGuard no_grad;
  const ArenaLayout& layout = arena_->layout();
  std::vector<OptimizerBlock> blocks;
  blocks.reserve(layout.blocks.size());
  for (const ArenaBlock& block : layout.blocks) blocks.push_back({.offset = block.offset, .size = block.size});

  // units follow each other in one buffer, so the first one's begin is everybody's
  float* gradient = arena_->unit_gradient(0).mutable_data_ptr<float>();
  StepOutcome outcome{.grad_norm = std::sqrt(gradient_square_sum_cpu(gradient, blocks))};
  if (!extra_finite || !(outcome.grad_norm < options_.drop_grad_norm)) {  // a NaN compares false
    ++skipped_;
    arena_->zero_gradient();
    return outcome;
  }

  ++t_;
  const double schedule = schedule_factor(t_, warmup_, total_, options_.final_lr_ratio);
  for (size_t b = 0; b < blocks.size(); ++b) {
    const bool decays = options_.decay_norms || !is_norm_block(layout, layout.blocks[b]);
    blocks[b].move = schedule * options_.lr * layout.blocks[b].multiplier;
    blocks[b].decay = decays ? schedule * options_.weight_decay : 0.0;
  }
  const OptimizerStepParams params{.theta = arena_->unit_master(0).mutable_data_ptr<float>(),
                                   .gradient = gradient,
                                   .v = slots_[0].mutable_data_ptr<float>(),
                                   .m = slots_[1].mutable_data_ptr<float>(),
                                   .blocks = blocks,
                                   .clip = std::min(1.0, options_.max_grad_norm / (outcome.grad_norm + 1e-8)),
                                   .beta_1 = options_.beta_1,
                                   .beta_2 = options_.beta_2,
                                   .t = t_};
  options_.optimizer == "adamw" ? adamw_step_cpu(params) : adastar_step_cpu(params);
  for (size_t unit = 0; unit < layout.units.size(); ++unit) arena_->refresh_working(unit);
  outcome.applied = true;
  outcome.lr = schedule * options_.lr;
  return outcome;
}

at::Tensor Optimizer::slot(const std::string& name, const std::string& parameter) const {
  const auto found = std::find(slot_names_.begin(), slot_names_.end(), name);
  COPPICE_CHECK(found != slot_names_.end(), fmt::format("no optimizer slot '{}'", name));
  return arena_->entry_of(slots_[static_cast<size_t>(found - slot_names_.begin())], parameter);
}

void Optimizer::restore(int64_t t, int64_t skipped) {
  t_ = t;
  skipped_ = skipped;
}

ScoreOptimizer::ScoreOptimizer(at::Tensor scores_LF, double lr, double beta_1, double beta_2, int64_t warmup_steps,
                               int64_t total_steps)
    : scores_(std::move(scores_LF)),
      lr_(lr),
      beta_1_(beta_1),
      beta_2_(beta_2),
      warmup_(warmup_steps),
      total_(total_steps) {
  check_dense(scores_, at::kFloat, at::kCPU, "scores_LF");
  COPPICE_CHECK(scores_.is_contiguous(), "scores_LF: expected a contiguous tensor");
  const at::NoGradGuard no_grad;
  m_ = at::zeros(scores_.sizes(), scores_.options().requires_grad(false));
  v_ = at::zeros(scores_.sizes(), scores_.options().requires_grad(false));
}

void ScoreOptimizer::step(const at::Tensor& grad_LF) {
  COPPICE_CHECK(
      grad_LF.sizes() == scores_.sizes(),
      fmt::format("score gradient: got {}, expected {}", shape_text(grad_LF.sizes()), shape_text(scores_.sizes())));
  check_dense(grad_LF, at::kFloat, scores_.device(), "score gradient");
  const at::NoGradGuard no_grad;
  ++t_;
  double factor = t_ < warmup_ ? static_cast<double>(t_) / static_cast<double>(warmup_) : 1.0;
  const double tail = 0.1 * static_cast<double>(total_);  // the last tenth falls linearly to 0
  if (tail > 0) factor = std::min(factor, std::max(0.0, static_cast<double>(total_ - t_) / tail));
  at::Tensor gradient = grad_LF.clone(at::MemoryFormat::Contiguous);  // the step zeroes what it reads
  const OptimizerBlock block{.offset = 0, .size = scores_.numel(), .move = factor * lr_, .decay = 0.0};
  adamw_step_cpu({.theta = scores_.mutable_data_ptr<float>(),
                  .gradient = gradient.mutable_data_ptr<float>(),
                  .v = v_.mutable_data_ptr<float>(),
                  .m = m_.mutable_data_ptr<float>(),
                  .blocks = {&block, 1},
                  .beta_1 = beta_1_,
                  .beta_2 = beta_2_,
                  .t = t_});
}

double gradient_scale(int64_t live_tokens_of_step) {
  return live_tokens_of_step > 0 ? 1.0 / static_cast<double>(live_tokens_of_step) : 0.0;
}

}  // namespace coppice
