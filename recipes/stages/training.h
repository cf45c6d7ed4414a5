// What train and learn_masks share: the batches of a step, held-out looks, metrics, skips, checkpoints, resuming,
// signals. The loop itself stands in each stage.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "recipes/stages/context.h"
#include "src/base/log.h"
#include "src/base/metrics.h"
#include "src/checkpoint/checkpoint.h"
#include "src/data/label_cache.h"
#include "src/data/loader.h"
#include "src/optim/optimizer.h"
#include "student/targets.h"

namespace coppice {

/// The order and form of a training stage's samples.
LoaderOptions loader_options(const StageContext& context, const TrainingOptions& training);

/// Published warm-up of the stage the options look like, or a tenth of the steps: the smaller.
int64_t warmup_steps(const TrainingOptions& options, int64_t published);

struct TrainStage;

/// What one teacher of a stage is: the caches of its label stage, one a domain of the mixture, or the frozen model
/// itself; and its share among several.
struct StageTeacher {
  std::string name;  // the stage it comes from
  std::vector<std::unique_ptr<LabelCache>> labels;
  std::unique_ptr<Model> model;
  double share = 1;
};
/// The teachers of a train stage; caches verified against the fingerprint that the label stage's manifest promises.
std::vector<StageTeacher> open_teachers(const StageContext& context, const TrainStage& options);

/// Says once that a gradient is exactly 0 step after step: nothing is learned, and no loss curve shows it.
class ZeroGradientWatch {
 public:
  /// `what`: whose gradient, for the message; a stage of fewer steps than ten is judged by all it has.
  ZeroGradientWatch(std::string what, int64_t num_steps)
      : what_(std::move(what)), enough_(std::min<int64_t>(10, num_steps)) {}
  /// The warning, at the step (from 1) where enough zeros came in a row; empty otherwise, and ever after.
  std::string look(double norm, int64_t step);

 private:
  std::string what_;
  int64_t enough_, zeros_ = 0;
  bool said_ = false;
};

class TrainingSession {
 public:
  /// Without teachers, true labels only. `top_k`: ids a token that loss top_k asks a live teacher for. `extra` are
  /// named tensors of the stage's own that belong into a checkpoint ("/mask/scores").
  TrainingSession(StageContext& context, const TrainingOptions& options, Model& model, Optimizer& optimizer,
                  std::vector<StageTeacher> teachers, int64_t top_k, std::vector<NamedTensor> extra);

  /// Loads the newest valid checkpoint of this stage, if any; `extra_facts` receives what the stage had added to it
  /// (empty object on a fresh start). `prepare` sees them and the manifest's path before a tensor is read: a stage that
  /// changes the model's shape brings it into the shape of the checkpoint.
  using Prepare = std::function<void(const Json& extra_facts, const std::string& path)>;
  void resume(Json& extra_facts, const Prepare& prepare = {});
  int64_t step() const { return step_; }  // finished steps
  int64_t num_steps() const { return num_steps_; }
  /// The micro-batches of the next step; the scale of their gradients is gradient_scale(live tokens of all of them).
  std::vector<Batch> next_batches();
  double scale() const { return scale_; }
  /// True labels and, when `distils`, what the stage's teachers say, from caches or live: one entry a teacher, a single
  /// one without.
  std::vector<Targets> targets(const Batch& batch, KdOptions distillation, bool distils) const;
  /// Live teachers read this batch for a step's loss: their forward passes are part of what the stage costs.
  void count_live_teachers(const Batch& batch);

  /// Mean next-token loss on a fixed held-out sample (nats a token), under `masks`.
  double heldout_loss(const FfnMasks& masks = {});
  /// True when end_step of the coming step will want a held-out loss.
  bool wants_heldout() const;

  /// Counts the step, appends `line` (loss terms first, stage-specific `extra` keys, then wall-clock keys), writes a
  /// checkpoint when due, stops when asked. Throws DivergedError after too many skipped steps in a row, Stopped after
  /// saving.
  void end_step(const LossSums& sums, double teacher_weight, const StepOutcome& outcome, double heldout,
                const std::vector<std::pair<std::string, double>>& extra, const Json& extra_facts);
  /// After the last step: final bookkeeping; returns {steps, tokens, skipped_steps, ...} for the stage's manifest.
  Json finish();

 private:
  void save(const Json& extra_facts);
  /// Everything of a checkpoint: parameters as `master_of` gives them, slots, what the stage adds.
  std::vector<NamedTensor> state_tensors(const std::function<at::Tensor(const std::string&)>& master_of) const;
  TeacherSignal stored_signal(const StageTeacher& teacher, const Batch& batch, const std::string& loss) const;

  StageContext& context_;
  const TrainingOptions& options_;
  Model& model_;
  Optimizer& optimizer_;
  std::vector<StageTeacher> teachers_;
  int64_t top_k_;
  std::vector<NamedTensor> extra_;
  std::unique_ptr<Loader> loader_;
  std::vector<Batch> heldout_batches_;
  std::vector<Batch> batches_;  // of the step under way
  std::unique_ptr<MetricsWriter> metrics_;
  Progress progress_;
  ZeroGradientWatch zero_gradient_;
  int64_t num_steps_ = 0, step_ = 0, saved_step_ = -1, tokens_seen_ = 0, consecutive_skips_ = 0, eval_steps_ = 0;
  double scale_ = 0, session_begin_s_ = 0, step_begin_s_ = 0, data_s_ = 0, work_s_ = 0, counted_s_ = 0, flops_ = 0,
         step_flops_ = 0;
};

}  // namespace coppice
