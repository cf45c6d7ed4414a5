// The update of the parameters: AdaStar (the AFM RMSProp variant) and AdamW as the control arm, both over the flat
// arena. Exact order of operations, from apple/axlearn's adastar_optimizer as the AFM paper describes it (arXiv
// 2407.21075):
//   norm = global L2 of the gradient; skip the step (state frozen) unless it is finite and < drop_norm
//   g *= min(1, max_norm/(norm + 1e-8));  t += 1;  v = b_v v + (1-b_v)(g^2 + 1e-30);  u = g / sqrt(v / (1 - b_v^t))
//   per block u /= max(1, rms(u));  m = b_m m + (1-b_m) u;  theta -= sched(t) (lr mult m + weight_decay theta)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/base/option_mark.h"
#include "src/distributed/comm.h"
#include "src/tensors/arena.h"
#include "src/tensors/kernels/optimizer_step.h"

namespace coppice {

struct OptimizerOptions {
  std::string optimizer = "adastar";
  double lr = 0.01;
  double weight_decay = 3.16e-4;
  double beta_1 = 0.95;  // adastar: of the update's average; adamw: of the gradient's (0.9 there)
  double beta_2 = 0.95;
  double max_grad_norm = 1.0;
  double drop_grad_norm = 100.0;
  int64_t warmup_steps = -1;  // -1: the smaller of the stage's published value and 10 % of its steps
  double final_lr_ratio = 0.005;
  bool decay_norms = true;

  template <class Field>
  void visit_fields(Field& field) {
    field("optimizer", optimizer, Mark::decides,
          "adastar (RMSProp with momentum and block clipping, as AFM) or adamw (control)");
    field("lr", lr, Mark::decides, "peak learning rate");
    field("weight_decay", weight_decay, Mark::decides, "decoupled; not scaled by lr; 0 = off");
    field("beta_1", beta_1, Mark::decides, "momentum: of the normalised update (adastar) or of the gradient (adamw)");
    field("beta_2", beta_2, Mark::decides, "decay of the squared gradient's average");
    field("max_grad_norm", max_grad_norm, Mark::decides, "global gradient norm is clipped to this");
    field("drop_grad_norm", drop_grad_norm, Mark::decides, "a step whose gradient norm reaches this is skipped");
    field("warmup_steps", warmup_steps, Mark::decides,
          "linear warm-up; -1 = smaller of the published value and 10 % of the steps");
    field("final_lr_ratio", final_lr_ratio, Mark::decides, "cosine ends at this share of lr");
    field("decay_norms", decay_norms, Mark::decides, "weight decay acts on norm weights too");
  }
};

/// The ranges of all options; UserError::recipe(where(key)) outside.
void check_optimizer_options(const OptimizerOptions& options, const std::function<std::string(const char* key)>& where);

/// What all ranks decide a step by: one fp64 tensor on the arena's device. Not-finite counts and the caller's sums are
/// added up over the ranks by Optimizer::begin_step, which puts the norm beside them and derives `applied`. The host
/// reads them once, at the end of the step.
struct StepVote {
  enum Place : int64_t { not_finite, grad_norm, applied, num_places };
  /// `num_sums`: how many numbers of the caller's own travel with the vote.
  explicit StepVote(int64_t num_sums = 0, at::Device device = at::kCPU);

  /// Losses or gradients outside of the arena; undefined: none. One that is not finite, on any rank, skips the step.
  void count_finite(const at::Tensor& outside);
  /// View of the caller's sums [num_sums].
  at::Tensor sums() const;

  at::Tensor values;  // [num_places + num_sums]
};

/// sched(t) in [0, 1] for t from 1: t/warmup, then cosine from 1 to final_ratio at total, constant after.
double schedule_factor(int64_t t, int64_t warmup, int64_t total, double final_ratio);

struct StepOutcome {
  bool applied = false;
  double grad_norm = 0;  // before clipping; may be inf or nan
  double lr = 0;         // sched(t) * lr of this step; 0 when skipped
};

/// State: slots over the arena and t (applied steps) and skipped (a counter); all of it is in a checkpoint.
class Optimizer {
 public:
  Optimizer(const OptimizerOptions& options, ParameterArena& arena, int64_t warmup_steps, int64_t total_steps);
  /// The options and counters of another one over an arena of its own; slots are zero.
  Optimizer(const Optimizer& like, ParameterArena& arena);

  /// One update from the arena's gradient, which is zeroed in the same pass; the working copy follows in it. Of several
  /// ranks, always the same, each moves the run of every unit that it owns, from a gradient that is complete there, and
  /// then has all of the master; slots are its own run's. The number of ranks changes no bit. The arena's layout must
  /// have been made for so many shards. On a device it is enqueued and not waited for.
  void begin_step(Comm& comm, StepVote& vote);
  /// Counts that step, once its vote is on the host (Fetch of src/tensors/transfers.h).
  StepOutcome end_step(const StepVote& vote);
  /// Both, with the wait between them.
  StepOutcome step(Comm& comm, StepVote& vote);
  /// The same where nobody else has a say.
  StepOutcome step(Comm& comm);

  const std::vector<std::string>& slot_names() const { return slot_names_; }  // "v", "m"
  /// A slot's values of one parameter, fp32 in its shape: checkpoints and compaction read and fill them.
  at::Tensor slot(const std::string& name, const std::string& parameter) const;
  int64_t t() const { return t_; }
  int64_t skipped() const { return skipped_; }
  void restore(int64_t t, int64_t skipped);  // slots are filled through slot()

 private:
  /// What the kernels read and write beside arena and slots, in the arena's memory.
  struct KernelTables {
    at::Tensor pieces;  // OptimizerPiece, those that this rank owns
    int64_t num_pieces = 0;
    at::Tensor blocks;                       // OptimizerBlockRow
    at::Tensor sums, block_values, scalars;  // float64
  };

  bool decays(const ArenaBlock& block) const;
  std::span<const OptimizerPiece> pieces_of(size_t unit) const;
  std::span<const OptimizerPiece> own_pieces(const Comm& comm, size_t unit) const;
  /// What the model computes with, of the first unit: says who moves it (src/tensors/execution.h).
  at::Tensor parameters() const;
  /// The update of the CPU in float32, unit by unit, and that of the kernels, of all units at once.
  void step_by_loops(Comm& comm, const StepVote& vote, int64_t t, double schedule);
  void step_by_kernels(Comm& comm, const StepVote& vote, int64_t t, double schedule);
  void make_tables(const Comm& comm);
  double gradient_norm(Comm& comm);
  void update(Comm& comm, int64_t t, double schedule, double clip);
  void move_by_adastar(Comm& comm, const OptimizerStepParams& params, size_t unit);
  void share_unit(Comm& comm, size_t unit);

  OptimizerOptions options_;
  ParameterArena* arena_;
  int64_t warmup_, total_, t_ = 0, skipped_ = 0;
  std::vector<std::string> slot_names_;
  std::vector<at::Tensor> slots_;
  std::vector<OptimizerBlock> blocks_;
  std::vector<OptimizerPiece> pieces_;  // unit after unit
  std::vector<size_t> unit_begin_;      // a unit's first piece; one more at the end
  std::vector<double> sums_;            // of pieces_, of the phase under way
  std::optional<KernelTables> tables_;  // made by the first step
};

/// Adam over mask scores: own group, no decay, constant after warm-up, then linear to 0 over the last tenth; outside
/// the global norm.
class ScoreOptimizer {
 public:
  ScoreOptimizer(at::Tensor scores_LF, double lr, double beta_1, double beta_2, int64_t warmup_steps,
                 int64_t total_steps);
  void step(const at::Tensor& grad_LF);
  at::Tensor first_moment() const { return m_; }
  at::Tensor second_moment() const { return v_; }
  int64_t t() const { return t_; }
  void restore(int64_t t) { t_ = t; }

 private:
  at::Tensor scores_, m_, v_;
  double lr_, beta_1_, beta_2_;
  int64_t warmup_, total_, t_ = 0;
};

/// 1 / live tokens of the whole step: the only place that divides by tokens. Micro-batches add gradients of summed row
/// losses times this.
double gradient_scale(int64_t live_tokens_of_step);

}  // namespace coppice
