// What the kinds that train go through their steps with: the sample stream, looks at held-out text, the journal, and
// checkpoints. The loop itself stands in each kind (run_train.cpp, run_learn_masks.cpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "recipes/stages/heldout.h"
#include "recipes/stages/journal.h"
#include "recipes/stages/sample_stream.h"
#include "src/checkpoint/checkpoint_writer.h"
#include "src/optim/optimizer.h"

namespace coppice {

/// Published warm-up of the stage the options look like, or a tenth of the steps: the smaller.
int64_t warmup_steps(const TrainingOptions& options, int64_t published);

/// Where the model that a stage trains lies, and how its master is kept.
Placement place_trained(const StageContext& context);

/// Checkpoints of a stage under way: model, optimizer, sample stream, counts, and what the stage adds of its own. A
/// model on a device goes on training while one is written. On a CPU the writing would take its time from the steps all
/// the same, and several ranks keep their checkpoints in step: there each is written before the next step.
class TrainingCheckpoints {
 public:
  /// `extra`: named tensors of the stage's own ("/mask/scores").
  TrainingCheckpoints(const StageContext& context, const TrainingOptions& options, Model& model, Optimizer& optimizer,
                      std::vector<NamedTensor> extra);

  /// Sees what the stage had added to a checkpoint, and the manifest's path, before a tensor is read: a stage that
  /// changes the model's shape brings it into the shape of the checkpoint.
  using Prepare = std::function<void(const Json& extra_facts, const std::string& path)>;
  /// Loads the newest valid checkpoint, if any; returns what the stage had added to it (an empty object on a fresh
  /// start). UserError for one of other options, tokenizer or tokens.
  Json resume(TrainingState& state, SampleStream& samples, const Prepare& prepare);
  /// Throws what the one before failed with (IoError).
  void save(const TrainingState& state, const SampleStream& samples, const Json& extra_facts);
  /// Throws what a write that has ended failed with.
  void check() { writer_.check(); }
  /// Waits until all are written, and throws what the last one failed with.
  void wait() { writer_.wait(); }
  /// As wait(); removes all but the last ones.
  void finish();
  /// Step of the last one known to stand; -1 = none.
  int64_t saved_step() const { return std::max(resumed_step_, writer_.saved_step()); }
  /// Seconds that they have held training up since the last call.
  double take_stall_s() { return writer_.take_stall_s(); }

 private:
  TensorSource tensors(std::function<at::Tensor(const std::string&)> master_of) const;
  void check_manifest(const Json& manifest, const std::string& path, int64_t step) const;

  const StageContext& context_;
  const TrainingOptions& options_;
  Model& model_;
  Optimizer& optimizer_;
  std::vector<NamedTensor> extra_;
  int64_t resumed_step_ = -1;
  CheckpointWriter writer_;
};

/// All of it together, in the order in which a step needs it.
struct Training {
  const StageContext& context;
  const TrainingOptions& options;
  Model& model;
  Optimizer& optimizer;
  SampleStream samples;
  Heldout heldout;
  Journal journal;
  TrainingCheckpoints checkpoints;
  TrainingState state;
  int64_t num_steps;

  /// `teachers`: names of several, for the journal.
  Training(const StageContext& context, const TrainingOptions& options, Model& model, Optimizer& optimizer,
           const std::vector<std::string>& teachers, std::vector<NamedTensor> extra);

  /// Goes on from the newest checkpoint, if any; returns what the stage had added to it.
  Json resume(const TrainingCheckpoints::Prepare& prepare = {});
  /// The micro-batches of the next step.
  const std::vector<Batch>& begin_step();
  /// NaN where no look is due.
  double heldout_loss_if_due() const;
  /// Behind the last work of a step, while a device is at it: the batches of the step that follows. Null where there is
  /// none, else their first.
  const Batch* read_ahead();
  /// The vote of the step under way, made before its update: whether this rank was told to stop or to save travels with
  /// what decides the update, and all ranks obey the sums.
  StepVote vote() const;
  /// Counts the step, appends its line, begins a checkpoint when due, stops when the vote, by now summed over all
  /// ranks, says so. Throws DivergedError after too many skipped steps in a row, Stopped after saving, IoError when a
  /// checkpoint could not be written.
  void end_step(const StepRecord& record, const StepVote& vote, const Json& extra_facts);
  /// After the last step; returns {steps, tokens, skipped_steps, ...} for the stage's manifest.
  Json finish();

 private:
  void save(const Json& extra_facts);
  /// Adds to the stage's seconds what has gone by since the last call.
  void count_time();

  double stall_s_ = 0;  // of checkpoints
};

}  // namespace coppice
