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
#include "src/tensors/execution.h"
#include "src/tensors/shape.h"
#include "src/tensors/transfers.h"

namespace coppice {

namespace {

constexpr int64_t kCacheGroup = int64_t{1} << 18;  // elements: g and v are 2 MiB, the second-level caches of two cores

/// The pieces that lie in a range: all of a piece does or nothing, as ranges are whole cells.
std::span<const OptimizerPiece> within(std::span<const OptimizerPiece> pieces, const UnitRange& range) {
  const auto place_of = [&](int64_t offset) {
    return std::ranges::lower_bound(pieces, offset, {}, &OptimizerPiece::offset) - pieces.begin();
  };
  const auto first = static_cast<size_t>(place_of(range.offset)),
             last = static_cast<size_t>(place_of(range.offset + range.size));
  return pieces.subspan(first, last - first);
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

StepVote::StepVote(int64_t num_sums, at::Device device)
    : values(at::zeros({num_places + num_sums}, at::TensorOptions().dtype(at::kDouble).device(device))) {}

void StepVote::count_finite(const at::Tensor& outside) {
  if (outside.defined()) values.select(0, not_finite).add_(outside.isfinite().all().logical_not());
}

at::Tensor StepVote::sums() const { return values.narrow(0, num_places, values.numel() - num_places); }

Optimizer::Optimizer(const OptimizerOptions& options, ParameterArena& arena, int64_t warmup_steps, int64_t total_steps)
    : options_(options), arena_(&arena), warmup_(warmup_steps), total_(total_steps), slot_names_{"v", "m"} {
  check_optimizer_options(options_, [](const char*) { return std::string(); });
  COPPICE_CHECK(warmup_ >= 0 && total_ >= 0, fmt::format("warm-up {} of {} steps", warmup_, total_));
  for (const std::string& name : slot_names_) slots_.push_back(arena.make_slot("optimizer slot " + name));

  const ArenaLayout& layout = arena.layout();
  for (const ArenaBlock& block : layout.blocks) blocks_.push_back({.offset = block.offset, .size = block.size});
  size_t entry = 0, block = 0;
  for (const ArenaUnit& unit : layout.units) {
    unit_begin_.push_back(pieces_.size());
    for (; entry < layout.entries.size() && layout.entries[entry].offset < unit.offset + unit.size; ++entry) {
      const ArenaEntry& here = layout.entries[entry];
      while (here.offset >= layout.blocks[block].offset + layout.blocks[block].size) ++block;
      append_pieces(pieces_, here.offset - unit.offset, here.size, layout.cell, static_cast<int64_t>(entry),
                    static_cast<int64_t>(block));
    }
  }
  unit_begin_.push_back(pieces_.size());
}

Optimizer::Optimizer(const Optimizer& like, ParameterArena& arena)
    : Optimizer(like.options_, arena, like.warmup_, like.total_) {
  restore(like.t_, like.skipped_);
}

StepOutcome Optimizer::step(Comm& comm) {
  StepVote vote(0, arena_->placement().device);
  return step(comm, vote);
}

StepOutcome Optimizer::step(Comm& comm, StepVote& vote) {
  begin_step(comm, vote);
  Fetch({&vote.values}).wait();
  return end_step(vote);
}

void Optimizer::begin_step(Comm& comm, StepVote& vote) {
  COPPICE_CHECK(arena_->has_gradient(), "the arena has no gradient; enable_gradient() was not called");
  check_shape(vote.values, {-1}, "the vote of the step");
  check_dense(vote.values, at::kDouble, arena_->placement().device, "the vote of the step");
  COPPICE_CHECK(vote.values.numel() >= StepVote::num_places, "a vote without its own places");
  const at::NoGradGuard no_grad;
  sum_over(comm, vote.values, "the vote of the step");
  const double schedule = schedule_factor(t_ + 1, warmup_, total_, options_.final_lr_ratio);
  if (execution_of(parameters()) == Execution::cpu)
    step_by_loops(comm, vote, t_ + 1, schedule);
  else
    step_by_kernels(comm, vote, t_ + 1, schedule);
}

StepOutcome Optimizer::end_step(const StepVote& vote) {
  COPPICE_CHECK(vote.values.is_cpu(), "the vote of a step is read before the step ends");
  const double schedule = schedule_factor(t_ + 1, warmup_, total_, options_.final_lr_ratio);
  const double* const votes = vote.values.const_data_ptr<double>();
  StepOutcome outcome{.applied = votes[StepVote::applied] != 0, .grad_norm = votes[StepVote::grad_norm]};
  ++(outcome.applied ? t_ : skipped_);
  if (outcome.applied) outcome.lr = schedule * options_.lr;
  return outcome;
}

at::Tensor Optimizer::parameters() const {
  const at::Tensor working = arena_->unit_working(0);
  return working.defined() ? working : arena_->unit_master(0);
}

/// A block holds either vectors (norm weights, biases) or matrices.
bool Optimizer::decays(const ArenaBlock& block) const {
  if (options_.decay_norms) return true;
  for (const ArenaEntry& entry : arena_->layout().entries)
    if (entry.offset == block.offset) return !entry.is_vector();
  throw InternalError(fmt::format("block {} begins with no parameter", block.name));
}

std::span<const OptimizerPiece> Optimizer::pieces_of(size_t unit) const {
  return std::span(pieces_).subspan(unit_begin_[unit], unit_begin_[unit + 1] - unit_begin_[unit]);
}

std::span<const OptimizerPiece> Optimizer::own_pieces(const Comm& comm, size_t unit) const {
  return within(pieces_of(unit), owned_range(arena_->layout(), unit, comm.rank(), comm.size()));
}

void Optimizer::step_by_loops(Comm& comm, const StepVote& vote, int64_t t, double schedule) {
  double* const votes = vote.values.mutable_data_ptr<double>();
  const double norm = votes[StepVote::grad_norm] = gradient_norm(comm);
  const bool applied = votes[StepVote::not_finite] == 0 && norm < options_.drop_grad_norm;  // a NaN compares false
  votes[StepVote::applied] = applied ? 1 : 0;
  if (applied)
    update(comm, t, schedule, std::min(1.0, options_.max_grad_norm / (norm + 1e-8)));
  else
    arena_->zero_gradient();
}

double Optimizer::gradient_norm(Comm& comm) {
  sums_.assign(pieces_.size(), 0.0);
  for (size_t unit = 0; unit < arena_->layout().units.size(); ++unit)
    square_sums_cpu(arena_->unit_gradient(unit).const_data_ptr<float>(), own_pieces(comm, unit), sums_);
  sum_over(comm, sums_, "squares of the gradient");  // each piece has one owner: what is added are zeros
  double total = 0;
  for (const EntrySum& entry : entry_sums(pieces_, sums_)) total += entry.sum;
  return std::sqrt(total);
}

void Optimizer::update(Comm& comm, int64_t t, double schedule, double clip) {
  const ArenaLayout& layout = arena_->layout();
  for (size_t b = 0; b < blocks_.size(); ++b) {
    blocks_[b].move = schedule * options_.lr * layout.blocks[b].multiplier;
    blocks_[b].decay = decays(layout.blocks[b]) ? schedule * options_.weight_decay : 0.0;
  }
  sums_.assign(pieces_.size(), 0.0);
  for (size_t unit = 0; unit < layout.units.size(); ++unit) {
    const at::Tensor theta = arena_->unit_master(unit), gradient = arena_->unit_gradient(unit);
    const int64_t begin = layout.units[unit].offset;
    const OptimizerStepParams params{.theta = theta.mutable_data_ptr<float>(),
                                     .gradient = gradient.mutable_data_ptr<float>(),
                                     .v = slots_[0].mutable_data_ptr<float>() + begin,
                                     .m = slots_[1].mutable_data_ptr<float>() + begin,
                                     .blocks = blocks_,
                                     .clip = clip,
                                     .beta_1 = options_.beta_1,
                                     .beta_2 = options_.beta_2,
                                     .t = t};
    if (options_.optimizer == "adamw")
      adamw_move_cpu(params, own_pieces(comm, unit));
    else
      move_by_adastar(comm, params, unit);
    share_unit(comm, unit);
  }
}

void Optimizer::move_by_adastar(Comm& comm, const OptimizerStepParams& params, size_t unit) {
  // rms(u) of a whole block must be known before the block moves, hence two passes. One rank takes blocks in groups
  // that fit into the caches, so that the second pass finds g and v there; several make one exchange a unit.
  const int64_t group_size = comm.size() == 1 ? kCacheGroup : arena_->layout().units[unit].size;
  const UnitRange own = owned_range(arena_->layout(), unit, comm.rank(), comm.size());
  std::span<const OptimizerPiece> left = pieces_of(unit);
  while (!left.empty()) {
    size_t count = 0;  // pieces of the group: whole blocks, at least one
    for (int64_t size = 0; count < left.size();) {
      const int64_t block = left[count].block;
      size += blocks_[static_cast<size_t>(block)].size;
      if (count > 0 && size > group_size) break;
      while (count < left.size() && left[count].block == block) ++count;
    }
    const std::span<const OptimizerPiece> group = left.first(count), owned = within(group, own);
    adastar_second_moments_cpu(params, owned, sums_);
    sum_over(comm, std::span(sums_).subspan(static_cast<size_t>(group.front().index), count), "squares of the update");
    clip_blocks(blocks_, group, sums_);
    adastar_move_cpu(params, owned);
    left = left.subspan(count);
  }
}

void Optimizer::share_unit(Comm& comm, size_t unit) {
  const UnitRange own = owned_range(arena_->layout(), unit, comm.rank(), comm.size());
  const at::Tensor gradient = arena_->unit_gradient(unit), remainder = arena_->unit_remainder(unit);
  const auto gather = [&](const at::Tensor& whole) {
    comm.all_gather(whole.narrow(0, own.offset, own.size), whole, "moved parameters").wait();
  };
  gather(remainder.defined() ? arena_->unit_working(unit) : arena_->unit_master(unit));
  if (remainder.defined()) gather(remainder);
  gradient.narrow(0, 0, own.offset).zero_();
  gradient.narrow(0, own.offset + own.size, gradient.numel() - own.offset - own.size).zero_();
  arena_->refresh_working(unit);
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
  std::vector<OptimizerPiece> pieces;
  append_pieces(pieces, 0, scores_.numel(), ArenaLayout{}.cell, 0, 0);
  adamw_move_cpu({.theta = scores_.mutable_data_ptr<float>(),
                  .gradient = gradient.mutable_data_ptr<float>(),
                  .v = v_.mutable_data_ptr<float>(),
                  .m = m_.mutable_data_ptr<float>(),
                  .blocks = {&block, 1},
                  .beta_1 = beta_1_,
                  .beta_2 = beta_2_,
                  .t = t_},
                 pieces);
}

double gradient_scale(int64_t live_tokens_of_step) {
  return live_tokens_of_step > 0 ? 1.0 / static_cast<double>(live_tokens_of_step) : 0.0;
}

}  // namespace coppice
