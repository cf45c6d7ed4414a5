// What the student is trained on: true label, teacher label, and the one place where 0.9 lives.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "src/base/option_mark.h"
#include "src/data/teacher_signal.h"
#include "src/data/windows.h"
#include "src/model/decoder.h"
#include "src/tensors/ops.h"

namespace coppice {

struct KdOptions {
  std::string loss = "labels";
  double teacher_weight = 0.9;
  double teacher_weight_end = -1;
  double temperature = 1.0;
  double beta = 0.5;
  double distil_from = 0.0;
  double distil_to = 1.0;
  std::string hidden_loss = "none";
  double hidden_weight = 1.0;
  std::vector<int64_t> hidden_layers;
  double z_loss = 1e-6;       // an option of every training stage
  bool float_logits = false;  // the same

  template <class Field>
  void visit_fields(Field& field) {
    field("loss", loss, Mark::decides,
          "labels (the teacher's top-1), top_k (stored or live, the rest as one bucket), decoupled_top_k (the same, "
          "kd_temperature within the k ids alone), sample (ids drawn from the teacher's distribution, stored or live), "
          "hybrid (the k ids, and draws of the rest, stored or live), kl, reverse_kl or jsd (these three need "
          "`teacher`)");
    field("teacher_weight", teacher_weight, Mark::decides,
          "share of the teacher in the target, 0 to 1; the rest is next-token loss on true labels");
    field("teacher_weight_end", teacher_weight_end, Mark::decides,
          "the share at distil_to, reached in a straight line; -1 = teacher_weight throughout");
    field("kd_temperature", temperature, Mark::decides,
          "softens teacher and student alike; the divergence carries its square");
    field("jsd_beta", beta, Mark::decides, "the teacher's share of the mean that jsd compares with, 0.001 to 0.999");
    field("distil_from", distil_from, Mark::decides,
          "share of the steps after which the teacher counts; above 1, steps");
    field("distil_to", distil_to, Mark::decides, "share of the steps up to which the teacher counts; above 1, steps");
    field("hidden_loss", hidden_loss, Mark::decides,
          "beside it: cosine or mse between the hidden states of student and teacher (needs `teacher`), or none");
    field("hidden_weight", hidden_weight, Mark::decides, "its weight in the loss");
    field("hidden_layers", hidden_layers, Mark::decides,
          "layers, counted from 1, whose outputs are compared; empty = the last one");
  }
};

/// distil_from and distil_to as shares of the steps.
std::pair<double, double> distil_span(const KdOptions& options, int64_t steps);
/// Temperature of the probabilities that a loss asks a teacher for: its own, but of decoupled_top_k 1.
double label_temperature(const KdOptions& options);
/// True when the teacher's weight is another one at some steps.
bool is_scheduled(const KdOptions& options);
/// True while the teacher counts: step `step` (from 0) of `steps` lies in [distil_from, distil_to).
bool distils_at(const KdOptions& options, int64_t step, int64_t steps);
/// teacher_weight of such a step; 0 outside.
double teacher_weight_at(const KdOptions& options, int64_t step, int64_t steps);

struct Targets {
  at::Tensor true_label_N;     // int64, kIgnoredLabel = no loss
  at::Tensor teacher_label_N;  // loss labels: int64; where the teacher has none it repeats the true label
  double teacher_weight = 0;   // 0 without a teacher
  double z_loss = 0;
  bool float_logits = false;  // as HeadRows has it
  std::string loss = "labels";
  TopK top;
  at::Tensor teacher_hidden_NE, teacher_head_VE;
  double temperature = 1, beta = 0.5;
  std::string hidden_loss = "none";
  double hidden_weight = 0;
  std::vector<int64_t> hidden_layers;        // from 0
  std::vector<at::Tensor> teacher_layer_ND;  // as many
  double share = 1;                          // of this teacher among several; they add up to 1
  int64_t labels_below = 0;                  // all labels are, the teacher's ids too; 0 = nobody has looked
  int64_t chunk_rows = 0;  // rows whose logits exist at once; 0 = by size (another number only in the self-test)
  bool has_teacher() const { return teacher_label_N.defined() || top.id_NK.defined() || teacher_hidden_NE.defined(); }
};

/// Targets of a batch; teacher_label_BT undefined = plain next-token loss.
Targets make_targets(const Batch& batch, const at::Tensor& teacher_label_BT, const KdOptions& options);
/// The same from whatever options.loss needs; a signal without it = plain next-token loss.
Targets distillation_targets(const Batch& batch, const TeacherSignal& signal, const KdOptions& options);

/// The loss of hidden states against their targets, as mixed_cross_entropy_step: the one place that knows which
/// operation a loss is.
LinearLoss head_loss(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& head_grad_VD,
                     const Targets& targets, double scale, bool argmax);
using HeadLoss =
    std::function<LinearLoss(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Targets&, double, bool)>;

/// Means over live rows of what was summed; loss = (1 - w) ce + w kd + z + hidden.
struct LossTerms {
  double loss = 0, ce = 0, kd = 0;
  int64_t num_live = 0;
};

/// Sum over live rows, mean over layers, of 1 - cos(student, teacher) (cosine) or of the mean over D of (student -
/// teacher)^2 (mse), float32. Layers [N, D], live_N bool.
at::Tensor hidden_state_loss(const std::string& kind, const std::vector<at::Tensor>& student_ND,
                             const std::vector<at::Tensor>& teacher_ND, const at::Tensor& live_N);

/// Sums of several micro-batches with the same weights.
struct LossSums {
  double ce = 0, kd = 0, z = 0, hidden = 0;  // z and hidden with their weights
  double teacher_weight = 0;                 // of kd; ce has the rest
  int64_t num_live = 0, correct = 0, agree = 0;
  std::vector<double> kd_of;  // of several teachers: each one's own, before its share
  void add(const LossSums& other);
  LossTerms terms() const;
};

/// Sums of a step's micro-batches, kept where they were made: nothing waits for a device until they are read.
class StepSums {
 public:
  StepSums() = default;
  /// `sum_S`: float64, the head's kNumLossSums, then hidden, then each teacher's own kd where there are several.
  StepSums(at::Tensor sum_S, double teacher_weight) : sum_S_(std::move(sum_S)), teacher_weight_(teacher_weight) {}
  void add(const StepSums& other);
  /// The sums so far where they were made, or where they have been brought since; undefined: none yet.
  const at::Tensor& values() const { return sum_S_; }
  at::Tensor& values() { return sum_S_; }
  /// The same as numbers; those of a device are waited for.
  LossSums read() const;

 private:
  at::Tensor sum_S_;  // undefined: none yet
  double teacher_weight_ = 0;
};

/// Forward and backward of one micro-batch: gradients of (sum of row losses) * scale are accumulated into the arena and
/// into .grad of masks that require it; such masks are leaves, so that the way back from them to the scores is walked
/// once a step, whatever the number of micro-batches. Without a live row the walk back is walked all the same, with
/// zeros: what happens on the way (a rank's part in a sum over ranks) must not depend on one batch's labels. Several
/// targets, one a teacher, count by their shares: kd is the mean of theirs, and each costs a pass of the output head.
StepSums train_micro_batch(const Model& model, const Batch& batch, std::span<const Targets> targets,
                           const DecoderMasks& masks, double scale, const HeadLoss& loss = head_loss,
                           Recompute recompute = Recompute::none);
StepSums train_micro_batch(const Model& model, const Batch& batch, const Targets& targets, const DecoderMasks& masks,
                           double scale);
/// The gradient of a step: its micro-batches one after the other, all with the scale of the whole step, gradient_scale
/// of its live tokens. `targets_of` is asked when a micro-batch's turn has come.
using TargetsOf = std::function<std::vector<Targets>(const Batch& batch)>;
StepSums accumulate_gradient(const Model& model, std::span<const Batch> batches, const TargetsOf& targets_of,
                             const DecoderMasks& masks, double scale, const HeadLoss& loss = head_loss,
                             Recompute recompute = Recompute::none);
/// Forward only; correct and agree are counted against true and teacher labels.
LossSums evaluate_batch(const Model& model, const Batch& batch, const Targets& targets, const DecoderMasks& masks = {});

/// The head's part of a step with one target a teacher: terms and gradients are means of theirs by their shares.
struct HeadStep {
  at::Tensor sum_S;  // as StepSums takes it; hidden is 0
  at::Tensor hidden_grad_ND;
};
HeadStep head_step(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& head_grad_VD,
                   std::span<const Targets> targets, double scale, const HeadLoss& loss = head_loss);

}  // namespace coppice
