// What the student is trained on: true label, teacher label, and the one place where 0.9 lives.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "src/data/loader.h"
#include "src/model/decoder.h"

namespace coppice {

struct KdOptions {
  double teacher_weight = 0.9;
  double z_loss = 1e-6;

  template <class Field>
  void visit_fields(Field& field) {
    field("teacher_weight", teacher_weight, "share of the teacher in the target (with labels); 0 = true labels only");
    field("z_loss", z_loss, "weight of (log-sum-exp of the logits)^2");
  }
};

struct Targets {
  at::Tensor true_label_N;     // int64, -100 = no loss
  at::Tensor teacher_label_N;  // int64; where the teacher has none it repeats the true label; undefined = no teacher
  double teacher_weight = 0;   // 0 when teacher_label_N is undefined
  double z_loss = 0;
};

/// Targets of a batch; teacher_label_BT undefined = plain next-token loss.
Targets make_targets(const Batch& batch, const at::Tensor& teacher_label_BT, const KdOptions& options);

/// Means over live rows of what was summed; loss = (1 - w) ce + w kd + z.
struct LossTerms {
  double loss = 0, ce = 0, kd = 0;
  int64_t num_live = 0;
};

/// Sums of several micro-batches.
struct LossSums {
  double ce = 0, kd = 0, z = 0;
  int64_t num_live = 0, correct = 0, agree = 0;
  void add(const LossSums& other);
  LossTerms terms(double teacher_weight) const;
};

/// Forward and backward of one micro-batch: gradients of (sum of row losses) * scale are accumulated into the arena and into .grad of masks
/// that require it; such masks are leaves, so that the way back from them to the scores is walked once a step, whatever the number of micro-batches.
LossSums train_micro_batch(const Model& model, const Batch& batch, const Targets& targets, const FfnMasks& masks, double scale);
/// Forward only; correct and agree are counted against true and teacher labels.
LossSums evaluate_batch(const Model& model, const Batch& batch, const Targets& targets, const FfnMasks& masks = {});

/// Losses that test themselves before step 0, in under a second: labels shifted by one raise nothing silently, weights 0 and 1 reduce to the pure losses,
/// ignored rows have zero gradient, the chunked loss equals the plain one. Throws InternalError naming the broken property. Returns the teacher/true agreement
/// on the batch (-1 without labels).
double self_test_loss(const Model& model, const Batch& batch, const Targets& targets);

}  // namespace coppice
