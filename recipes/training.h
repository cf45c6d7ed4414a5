// What train and learn_masks share: the batches of a step, held-out looks, metrics, skips, checkpoints, resuming, signals. The loop itself stands in each
// stage.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "recipes/stages.h"
#include "src/base/log.h"
#include "src/base/metrics.h"
#include "src/data/label_cache.h"
#include "src/data/loader.h"
#include "src/optim/optimizer.h"
#include "student/targets.h"

namespace coppice {

/// Published warm-up of the stage the options look like, or a tenth of the steps: the smaller.
int64_t warmup_steps(const TrainingOptions& options, int64_t published);

/// Opens the label caches of a label stage for the domains of a mixture, verified against the fingerprint its manifest promises.
std::vector<std::unique_ptr<LabelCache>> open_labels(const StageContext& context, const std::string& label_stage, const std::vector<MixtureEntry>& mixture);

class TrainingSession {
 public:
  /// `labels` may be empty (no teacher). `extra` are named tensors of the stage's own that belong into a checkpoint ("/mask/scores").
  TrainingSession(StageContext& context, const TrainingOptions& options, Model& model, Optimizer& optimizer, std::vector<std::unique_ptr<LabelCache>> labels,
                  std::vector<NamedTensor> extra);
  /// A live teacher instead of labels: its frozen model, and the ids a token that loss top_k asks for.
  void use_teacher(const Model* teacher, int64_t top_k);

  /// Loads the newest valid checkpoint of this stage, if any; `extra_facts` receives what the stage had added to it (empty object on a fresh start).
  void resume(Json& extra_facts);
  int64_t step() const { return step_; }  // finished steps
  int64_t num_steps() const { return num_steps_; }
  /// The micro-batches of the next step; the scale of their gradients is gradient_scale(live tokens of all of them).
  std::vector<Batch> next_batches();
  double scale() const { return scale_; }
  /// True labels and, unless teacher_weight is 0, what the stage's teacher says, from its caches or live.
  Targets targets(const Batch& batch, KdOptions distillation) const;

  /// Mean next-token loss on a fixed held-out sample (nats a token), under `masks`.
  double heldout_loss(const FfnMasks& masks = {});
  /// True when end_step of the coming step will want a held-out loss.
  bool wants_heldout() const;

  /// Counts the step, appends `line` (loss terms first, stage-specific `extra` keys, then wall-clock keys), writes a checkpoint when due, stops when asked.
  /// Throws DivergedError after too many skipped steps in a row, Stopped after saving.
  void end_step(const LossSums& sums, double teacher_weight, const StepOutcome& outcome, double heldout,
                const std::vector<std::pair<std::string, double>>& extra, const Json& extra_facts);
  /// After the last step: final bookkeeping; returns {steps, tokens, skipped_steps, ...} for the stage's manifest.
  Json finish();

 private:
  void save(const Json& extra_facts);
  TeacherSignal stored_signal(const Batch& batch, const std::string& loss) const;

  StageContext& context_;
  const TrainingOptions& options_;
  Model& model_;
  Optimizer& optimizer_;
  std::vector<std::unique_ptr<LabelCache>> labels_;
  std::vector<const LabelCache*> label_views_;
  const Model* teacher_ = nullptr;
  int64_t top_k_ = 0;
  std::vector<NamedTensor> extra_;
  std::unique_ptr<Loader> loader_;
  std::vector<Batch> heldout_batches_;
  std::vector<Batch> batches_;  // of the step under way
  std::unique_ptr<MetricsWriter> metrics_;
  Progress progress_;
  int64_t num_steps_ = 0, step_ = 0, saved_step_ = -1, tokens_seen_ = 0, consecutive_skips_ = 0, eval_steps_ = 0;
  double scale_ = 0, session_begin_s_ = 0, step_begin_s_ = 0, data_s_ = 0, work_s_ = 0, counted_s_ = 0, flops_per_token_ = 0;
};

}  // namespace coppice
