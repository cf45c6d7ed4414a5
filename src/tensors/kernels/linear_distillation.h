// Distillation from a dense teacher, chunk by chunk: student logits z and teacher logits u of a few tokens exist
// together, and one pass a row ends with d(loss)/dz in place of z. With q = softmax(u / tau), p = softmax(z / tau), lse
// = logsumexp z:
//   loss = (1 - w) (lse - z[true]) + w K + zeta lse^2
//   kl          K = tau^2 sum q log(q / p)                                          dK/dz = tau (p - q)
//   reverse_kl  K = tau^2 sum p log(p / q)                                          dK/dz = tau p (h - sum p h), h =
//   log(p / q) jsd         K = tau^2 [beta KL(q | m) + (1 - beta) KL(p | m)], m = beta q + (1 - beta) p;  the same with
//   h = (1 - beta) log(p / m)
// The factor tau^2 keeps the gradient's size when the temperature changes. A row whose true label is kIgnoredLabel is
// ignored in every term. C = tokens of a chunk, V = vocabulary, w = teacher weight, zeta = z_loss. This file is the
// pass over rows.
#pragma once

#include <cstdint>
#include <span>

#include "src/tensors/kernels/loss_rows.h"
#include "src/tensors/kernels/loss_terms.h"

namespace coppice {

enum class DistillationLoss { kl, reverse_kl, jsd };

struct DistillationSettings {
  DistillationLoss loss = DistillationLoss::kl;
  double teacher_weight = 1;
  double temperature = 1;
  double beta = 0.5;  // of jsd: the teacher's share of the mean, above 0 and below 1
  double z_loss = 0;
};

template <class T>
struct DistillationParams {
  T* logits = nullptr;          // (C, V): the student's in, `scale` times d(loss)/d(logits) out; overwritten either way
  T* teacher_logits = nullptr;  // (C, V): overwritten
  const int64_t* true_label = nullptr;  // (C): in [0, V) or kIgnoredLabel
  LossRow* rows = nullptr;              // (C), overwritten; of the CPU
  LossTerms* terms = nullptr;           // (C), overwritten; of a device
  int64_t num_rows = 0;                 // C
  int64_t num_vocab = 0;                // V
  int64_t first_id = 0;                 // id of the first column; a true label outside the columns is another part's; 0
                                        // on a device, which has the whole vocabulary
  DistillationSettings settings;
  double scale = 1;
  bool write_gradient = false;
  bool argmax = false;
};
void distillation_cpu(const DistillationParams<float>& params);

// On a device, T = float or Bf16; statistics in float32, and the teacher's logits stay as they are. Each enqueues and
// returns the launch's error, 0 for none.
namespace device {
template <class T>
int distillation(const DistillationParams<T>& params, CUstream_st* stream);
}
namespace emulated {
template <class T>
int distillation(const DistillationParams<T>& params, CUstream_st* stream);
}

/// The same over one part of a vocabulary: a walk for statistics, one for gradient and loss; of jsd, whose gradient and
/// value are known only behind the latter, its own sums are exchanged in a third.
struct DistillationStatistics {
  double largest_p = 0, largest_q = 0;     // logits, of student and teacher
  double sum_1 = 0, sum_p = 0, sum_q = 0;  // of exponentials with the largest taken off
  double cross = 0;                        // kl: sum e_q (u - z); reverse_kl: sum e_p (z - u), both likewise
  double z_true = 0;                       // where this part has it
  double top_1 = -1, teacher_top_1 = -1;   // ids; -1 when not asked for
};
struct JsdStatistics {
  double value = 0, mean_h = 0;  // the teacher's half of K / tau^2 without its beta, sum p h without its 1 - beta
};
void distillation_statistics_cpu(const DistillationParams<float>& params, DistillationStatistics* statistics);
/// `jsd` (C) is written by that loss alone; then distillation_jsd_cpu has the last word.
void distillation_gradient_cpu(const DistillationParams<float>& params, const RowParts<DistillationStatistics>& parts,
                               JsdStatistics* jsd);
void distillation_jsd_cpu(const DistillationParams<float>& params, const RowParts<JsdStatistics>& parts);

/// One row in double; `gradient` (V values, scale 1) may be empty.
LossRow distillation_reference(std::span<const double> logits, std::span<const double> teacher_logits,
                               int64_t true_label, const DistillationSettings& settings, std::span<double> gradient);

}  // namespace coppice
