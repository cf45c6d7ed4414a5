// The update by the kernels of optimizer_step.h: the whole arena at once, and nothing on the way waits for a number.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

#include "src/optim/optimizer.h"
#include "src/tensors/optimizer_phase.h"
#include "src/tensors/transfers.h"

namespace coppice {
namespace {

/// Rows as they are, in the device's memory.
template <class Row>
at::Tensor table_of(const std::vector<Row>& rows, at::Device device) {
  const auto bytes = std::as_bytes(std::span(rows));
  const at::Tensor table = at::empty({std::ssize(bytes)}, at::kByte);
  std::ranges::copy(bytes, static_cast<std::byte*>(table.mutable_data_ptr()));
  return sent(table, device);
}

/// What a kernel is told of a buffer; null for an undefined one.
template <class T>
T* start_of(const at::Tensor& buffer) {
  return buffer.defined() ? static_cast<T*>(buffer.mutable_data_ptr()) : nullptr;
}

double inverse_bias(double beta, int64_t t) { return 1.0 / (1.0 - std::pow(beta, static_cast<double>(t))); }

}  // namespace

void Optimizer::make_tables(const Comm& comm) {
  const ArenaLayout& layout = arena_->layout();
  const at::Device device = arena_->placement().device;
  const auto doubles = [&](size_t count) {
    return at::zeros({static_cast<int64_t>(count)}, at::TensorOptions().dtype(at::kDouble).device(device));
  };
  std::vector<OptimizerBlockRow> rows;
  for (const ArenaBlock& block : layout.blocks)
    rows.push_back({.size = block.size, .multiplier = block.multiplier, .decay = decays(block) ? 1.0 : 0.0});
  for (const OptimizerPiece& piece : pieces_) {
    OptimizerBlockRow& row = rows[static_cast<size_t>(piece.block)];
    if (row.num_pieces++ == 0) row.first_piece = piece.index;
  }
  std::vector<OptimizerPiece> own;  // offsets from the arena's begin
  for (size_t unit = 0; unit < layout.units.size(); ++unit)
    for (OptimizerPiece piece : own_pieces(comm, unit)) {
      piece.offset += layout.units[unit].offset;
      own.push_back(piece);
    }
  tables_ = KernelTables{.pieces = table_of(own, device),
                         .num_pieces = std::ssize(own),
                         .blocks = table_of(rows, device),
                         .sums = doubles(pieces_.size()),
                         .block_values = doubles(rows.size()),
                         .scalars = doubles(sizeof(OptimizerScalars) / sizeof(double))};
}

void Optimizer::step_by_kernels(Comm& comm, const StepVote& vote, int64_t t, double schedule) {
  if (!tables_) make_tables(comm);
  const at::Tensor scalars = at::empty(tables_->scalars.sizes(), at::kDouble);
  *start_of<OptimizerScalars>(scalars) = {.lr = schedule * options_.lr,
                                          .weight_decay = schedule * options_.weight_decay,
                                          .inverse_bias_1 = inverse_bias(options_.beta_1, t),
                                          .inverse_bias_2 = inverse_bias(options_.beta_2, t),
                                          .max_grad_norm = options_.max_grad_norm,
                                          .drop_grad_norm = options_.drop_grad_norm};
  tables_->scalars.copy_(sent(scalars, tables_->scalars.device()));
  double* const votes = start_of<double>(vote.values);
  const OptimizerKernelParams params{.pieces = start_of<OptimizerPiece>(tables_->pieces),
                                     .num_pieces = tables_->num_pieces,
                                     .blocks = start_of<OptimizerBlockRow>(tables_->blocks),
                                     .num_blocks = std::ssize(arena_->layout().blocks),
                                     .theta = start_of<float>(arena_->unit_master(0)),  // units lie in one buffer
                                     .gradient = start_of<float>(arena_->unit_gradient(0)),
                                     .v = start_of<float>(slots_[0]),
                                     .m = start_of<float>(slots_[1]),
                                     .working = start_of<Bf16>(arena_->unit_working(0)),
                                     .remainder = start_of<int16_t>(arena_->unit_remainder(0)),
                                     .sums = start_of<double>(tables_->sums),
                                     .block_values = start_of<double>(tables_->block_values),
                                     .scalars = start_of<OptimizerScalars>(tables_->scalars),
                                     .not_finite = votes + StepVote::not_finite,
                                     .grad_norm = votes + StepVote::grad_norm,
                                     .applied = votes + StepVote::applied,
                                     .beta_1 = options_.beta_1,
                                     .beta_2 = options_.beta_2};
  const auto run = [&](OptimizerPhase phase) { run_optimizer_phase(phase, params, parameters()); };
  const auto run_sums = [&](OptimizerPhase phase, const char* what) {
    if (comm.size() > 1) tables_->sums.zero_();  // each piece has one owner: what is added are zeros
    run(phase);
    sum_over(comm, tables_->sums, what);
  };
  run_sums(OptimizerPhase::square_sums, "squares of the gradient");
  run(OptimizerPhase::vote);
  if (options_.optimizer == "adamw") {
    run(OptimizerPhase::adamw_move);
  } else {
    run_sums(OptimizerPhase::adastar_square_sums, "squares of the update");
    run(OptimizerPhase::adastar_inverse_rms);
    run(OptimizerPhase::adastar_move);
  }
  for (size_t unit = 0; comm.size() > 1 && unit < arena_->layout().units.size(); ++unit) share_unit(comm, unit);
  arena_->refresh_vectors();
}

}  // namespace coppice
