// What the kinds that train go through their steps with: the sample stream, looks at held-out text, the journal, and
// checkpoints. The loop itself stands in each kind (run_train.cpp, run_learn_masks.cpp).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "recipes/stages/heldout.h"
#include "recipes/stages/journal.h"
#include "recipes/stages/sample_stream.h"
#include "src/checkpoint/tensor_folder_writer.h"
#include "src/optim/optimizer.h"

namespace coppice {

/// Published warm-up of the stage the options look like, or a tenth of the steps: the smaller.
int64_t warmup_steps(const TrainingOptions& options, int64_t published);

/// Where the model that a stage trains lies, and how its master is kept.
Placement place_trained(const StageContext& context);

/// Checkpoints of a stage under way: model, optimizer, sample stream, counts, and what the stage adds of its own.
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
  void save(const TrainingState& state, const SampleStream& samples, const Json& extra_facts);
  /// Removes all but the last ones.
  void prune() const;
  /// Step of the last one; -1 = none.
  int64_t saved_step() const { return saved_step_; }

 private:
  TensorSource tensors(std::function<at::Tensor(const std::string&)> master_of) const;
  void check_manifest(const Json& manifest, const std::string& path, int64_t step) const;

  const StageContext& context_;
  const TrainingOptions& options_;
  Model& model_;
  Optimizer& optimizer_;
  std::vector<NamedTensor> extra_;
  int64_t saved_step_ = -1;
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
  /// The vote of the step under way, made before its update: whether this rank was told to stop or to save travels with
  /// what decides the update, and all ranks obey the sums.
  StepVote vote() const;
  /// Counts the step, appends its line, writes a checkpoint when due, stops when the vote, by now summed over all
  /// ranks, says so. Throws DivergedError after too many skipped steps in a row, Stopped after saving.
  void end_step(const StepRecord& record, const StepVote& vote, const Json& extra_facts);
  /// After the last step; returns {steps, tokens, skipped_steps, ...} for the stage's manifest.
  Json finish();

 private:
  void save(const Json& extra_facts);
};

}  // namespace coppice
