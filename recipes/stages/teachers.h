// The teachers of a train stage: label stages whose stored labels are read, or models that read each batch themselves.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "recipes/stages/context.h"
#include "recipes/stages/train.h"
#include "src/data/label_cache.h"
#include "src/model/decoder.h"
#include "student/targets.h"

namespace coppice {

class StageTeachers {
 public:
  /// Opens caches, verified against the fingerprint that the label stage's manifest promises and walked in the order of
  /// the stage's samples (stored_labels.h); loads models.
  StageTeachers(const StageContext& context, const TrainStage& options);

  bool empty() const { return teachers_.empty(); }
  std::vector<std::string> names() const;
  /// What each teacher says of a batch, as targets with its share.
  std::vector<Targets> targets(const Batch& batch, KdOptions distillation, int64_t num_layers);
  /// Looks up what caches say of a batch that targets() will be asked of, of this one alone.
  void read_ahead(const Batch& batch, const KdOptions& distillation);
  /// Faults of each teacher's signals since the last check (src/data/teacher_signal.h), int64 where they were found;
  /// undefined: none were looked for.
  at::Tensor& faults() { return faults_T_; }
  /// Once they are on the host: UserError::bad_file of a live teacher whose logits are not finite, InternalError of a
  /// token without a stored label.
  void check_faults();
  /// Of the live teachers' passes over a batch: part of what the stage costs.
  double flops(const Batch& batch) const;

 private:
  struct Teacher {
    std::string name;                                 // the stage it comes from
    std::vector<std::unique_ptr<LabelCache>> labels;  // one a domain of the mixture
    bool some = false;                                // tokens may be without a label
    std::unique_ptr<Model> model;                     // instead of labels
    double share = 1;
  };
  TeacherSignal stored(const Teacher& teacher, const Batch& batch, const SignalRequest& request) const;
  SignalRequest request_of(const KdOptions& distillation) const;
  std::string name_of(const Teacher& teacher) const;

  std::string stage_;
  int64_t top_k_ = 0, draws_ = 0, seq_len_ = 0;
  double proposal_temperature_ = 1;
  uint64_t seed_ = 0;
  std::vector<const TokenShards*> domains_;  // of the mixture
  std::vector<Teacher> teachers_;
  at::Tensor ahead_BT_;                // tokens of the batch that was read ahead
  std::vector<TeacherSignal> signal_;  // of it, one a teacher
  at::Tensor faults_T_;
};

}  // namespace coppice
