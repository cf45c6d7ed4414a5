// Next-token loss on hidden states: logits = hidden head^T a chunk of tokens at a time, then one pass a row that ends
// with d(logits) in place of the logits.
//   lse = logsumexp z,  loss = lse - (1 - w) z[true] - w z[teacher] + zeta lse^2
//   d loss / dz = softmax (1 + 2 zeta lse) - (1 - w) [true] - w [teacher]
// The teacher's part needs only its top-1 label: one gather more than plain cross-entropy (arXiv 2407.21075). A row
// whose true label is kIgnoredLabel is ignored: no loss, zero gradient. A row without a teacher label (as ignored, or
// no teacher labels at all) takes the true label for it, and so does a row where both agree: its loss is plain
// cross-entropy bit for bit, as every row's is with w = 0. C = tokens of a chunk, V = vocabulary, w = teacher weight,
// zeta = z_loss, T = element type of logits. This file is the pass over rows.
#pragma once

#include <cstdint>
#include <span>

#include "src/tensors/kernels/bf16.h"
#include "src/tensors/kernels/loss_rows.h"
#include "src/tensors/kernels/loss_terms.h"

namespace coppice {

template <class T>
struct MixedCrossEntropyParams {
  T* logits = nullptr;                     // (C, V): logits in, with write_gradient `scale` times d(loss)/d(logits) out
  const int64_t* true_label = nullptr;     // (C): in [0, V) or kIgnoredLabel
  const int64_t* teacher_label = nullptr;  // (C): in [0, V) or kIgnoredLabel; nullptr = none
  LossRow* rows = nullptr;                 // (C), overwritten; of the CPU
  LossTerms* terms = nullptr;              // (C), overwritten; of a device
  int64_t num_rows = 0;                    // C
  int64_t num_vocab = 0;                   // V
  int64_t first_id = 0;                    // id of the first column; labels outside the columns belong to other parts;
                                           // 0 on a device, which has the whole vocabulary
  double teacher_weight = 0;
  double z_loss = 0;
  double scale = 1;
  bool write_gradient = false;
  bool argmax = false;
};
void mixed_cross_entropy_cpu(const MixedCrossEntropyParams<float>& params);

// On a device, T = float or Bf16: a row is read and written once, or read twice, the second time from the cache, where
// it does not fit into shared memory; statistics in float32. Each enqueues and returns the launch's error, 0 for none.
namespace device {
template <class T>
int mixed_cross_entropy(const MixedCrossEntropyParams<T>& params, CUstream_st* stream);
}
namespace emulated {
template <class T>
int mixed_cross_entropy(const MixedCrossEntropyParams<T>& params, CUstream_st* stream);
}

/// Shares of the two labels of a row: everything on the true label where there is no other.
struct LabelShares {
  int64_t teacher;
  double true_share, teacher_share;
};
COPPICE_HOST_DEVICE inline LabelShares share_labels(int64_t true_label, int64_t teacher_label, double teacher_weight) {
  if (teacher_weight == 0.0 || teacher_label == kIgnoredLabel || teacher_label == true_label)
    return {true_label, 1.0, 0.0};
  return {teacher_label, 1.0 - teacher_weight, teacher_weight};
}

/// The same over one part of a vocabulary, in two walks: logits become exponentials and statistics, and those the
/// gradient and the whole row's loss.
struct MixedStatistics {
  double largest = 0, sum = 0;       // of exp(z - largest)
  double z_true = 0, z_teacher = 0;  // where this part has them
  double top_1 = -1;                 // id of the largest; -1 when not asked for
};
void mixed_cross_entropy_statistics_cpu(const MixedCrossEntropyParams<float>& params, MixedStatistics* statistics);
void mixed_cross_entropy_gradient_cpu(const MixedCrossEntropyParams<float>& params,
                                      const RowParts<MixedStatistics>& parts);

/// One row in double; `gradient` (V values, scale 1) may be empty.
LossRow mixed_cross_entropy_reference(std::span<const double> logits, int64_t true_label, int64_t teacher_label,
                                      double teacher_weight, double z_loss, std::span<double> gradient);

}  // namespace coppice
