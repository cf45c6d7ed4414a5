// What a training stage says of itself, step by step: metrics.jsonl, the progress line, skipped steps and the samples
// they had (bad_batches.jsonl), a gradient that stays 0; and the counts that go on from one start to the next.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "recipes/language/training_options.h"
#include "recipes/stages/context.h"
#include "src/base/log.h"
#include "src/base/metrics.h"
#include "src/data/windows.h"
#include "src/optim/optimizer.h"
#include "student/targets.h"

namespace coppice {

/// Says once that a gradient is exactly 0 step after step: nothing is learned, and no loss curve shows it.
class ZeroGradientWatch {
 public:
  /// `what`: whose gradient, for the message; a stage of fewer steps than ten is judged by all it has.
  ZeroGradientWatch(std::string what, int64_t num_steps);
  /// The warning, at the step (from 1) where enough zeros came in a row; empty otherwise, and ever after.
  std::string look(double norm, int64_t step);

 private:
  std::string what_;
  int64_t enough_, zeros_ = 0;
  bool said_ = false;
};

/// Counts that a checkpoint holds.
struct TrainingState {
  int64_t step = 0;  // finished steps
  int64_t tokens = 0;
  int64_t consecutive_skips = 0;
  double flops = 0;
};

/// What became of a step.
struct StepRecord {
  const LossSums& sums;
  const StepOutcome& outcome;
  double heldout = 0;                                 // NaN: no look
  std::vector<std::pair<std::string, double>> extra;  // keys of the stage's own
};

class Journal {
 public:
  /// `teachers`: names of several, whose terms are told apart.
  Journal(const StageContext& context, const TrainingOptions& options, std::vector<std::string> teachers);
  /// Cuts what was written after `state`, and goes on from there.
  void open(const TrainingState& state);
  void begin_step();
  /// FLOPs of the step under way beside the model's own forward and backward.
  void add_flops(double flops) { step_flops_ += flops; }
  /// Counts the step into `state` and writes its line. `model`: as it was in the step. Throws DivergedError after too
  /// many skipped steps in a row, naming the last checkpoint: `saved_step` is asked then.
  void end_step(TrainingState& state, const StepRecord& record, const ModelConfig& model,
                const std::vector<Batch>& batches, const std::function<int64_t()>& saved_step);
  /// What is written survives a power cut.
  void sync() { metrics_->sync(); }
  /// `waited_s`, `stall_s`: for data and for checkpoints.
  void finish(const TrainingState& state, double waited_s, double stall_s);
  /// Seconds since the last call, or since open().
  double take_seconds();

 private:
  void write_line(const TrainingState& state, const StepRecord& record, double step_s, double mfu);
  void write_skipped(int64_t step, const StepRecord& record, const std::vector<Batch>& batches);

  const StageContext& context_;
  const TrainingOptions& options_;
  std::vector<std::string> teachers_;
  std::unique_ptr<MetricsWriter> metrics_;
  Progress progress_;
  ZeroGradientWatch zero_gradient_;
  double begin_s_ = 0, step_begin_s_ = 0, counted_s_ = 0, work_s_ = 0, step_flops_ = 0;
  double gemm_gflops_ = 0, peak_gflops_ = 0;  // of where the stage computes
};

}  // namespace coppice
