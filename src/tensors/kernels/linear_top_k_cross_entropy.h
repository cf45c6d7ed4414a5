// Distillation from stored top-k probabilities: what the k ids S leave over is one bucket R, so that the student is not
// pulled towards a sharper teacher than there was (dropping the tail and renormalising is biased, arXiv 2503.16870).
// With p = softmax(z / tau), q the stored probabilities (taken at tau):
//   loss = (1 - w) (lse - z[true]) + w K + zeta lse^2,   K = tau^2 [sum_S q log(q / p) + q_R log(q_R / p_R)]
//   dK/dz = tau (Q p - q) in S,  tau p (Q - q_R / p_R) in R;   Q = sum_S q + q_R, 1 but for the rounding of what was
//   stored
// An id below 0 is no entry; a row whose first id is below 0 has no teacher and is plain cross-entropy; a true label of
// kIgnoredLabel is an ignored row. C = tokens of a chunk, V = vocabulary, K = stored ids, w = teacher weight, zeta =
// z_loss.
#pragma once

#include <cstdint>
#include <span>

#include "src/tensors/kernels/loss_rows.h"
#include "src/tensors/kernels/loss_terms.h"

namespace coppice {

struct TopKSettings {
  double teacher_weight = 1;
  double temperature = 1;
  double z_loss = 0;
};

template <class T>
struct TopKCrossEntropyParams {
  T* logits = nullptr;  // (C, V): logits in, with write_gradient `scale` times d(loss)/d(logits) out, else overwritten
  const int64_t* true_label = nullptr;  // (C): in [0, V) or kIgnoredLabel
  const int64_t* top_id = nullptr;      // (C, K): different ids in [0, V), or below 0
  const float* top_logp = nullptr;      // (C, K): log q
  const float* tail_logp = nullptr;     // (C): log q_R, -infinity = nothing left over
  LossRow* rows = nullptr;              // (C), overwritten; of the CPU
  LossTerms* terms = nullptr;           // (C), overwritten; of a device
  int64_t num_rows = 0;                 // C
  int64_t num_vocab = 0;                // V
  int64_t first_id = 0;                 // id of the first column; ids outside the columns belong to other parts; 0 on a
                                        // device, which has the whole vocabulary
  int64_t k = 0;                        // K
  TopKSettings settings;
  double scale = 1;
  bool write_gradient = false;
  bool argmax = false;
  bool cross_entropy = false;  // K without the teacher's entropy: -tau^2 [sum_S q log p + q_R log p_R], what shares of
                               // draws are measured by. Of a device; on the CPU whoever wants it adds the entropy up.
};
void top_k_cross_entropy_cpu(const TopKCrossEntropyParams<float>& params);

// On a device, T = float or Bf16; statistics in float32. Each enqueues and returns the launch's error, 0 for none.
namespace device {
template <class T>
int top_k_cross_entropy(const TopKCrossEntropyParams<T>& params, CUstream_st* stream);
}
namespace emulated {
template <class T>
int top_k_cross_entropy(const TopKCrossEntropyParams<T>& params, CUstream_st* stream);
}

/// The same over one part of a vocabulary, in two walks: statistics, then gradient and the whole row's loss.
struct TopKStatistics {
  double largest = 0;
  double sum_1 = 0, sum_p = 0, tail_p = 0;  // of exponentials with the largest taken off; tail_p: without S
  double cross = 0, q_sum = 0;              // over S: sum q (log q - (z - largest) / tau), sum q
  double z_true = 0;                        // where this part has it
  double top_1 = -1;                        // id; -1 when not asked for
};
void top_k_cross_entropy_statistics_cpu(const TopKCrossEntropyParams<float>& params, TopKStatistics* statistics);
void top_k_cross_entropy_gradient_cpu(const TopKCrossEntropyParams<float>& params,
                                      const RowParts<TopKStatistics>& parts);

/// One row in double; `gradient` (V values, scale 1) may be empty.
LossRow top_k_cross_entropy_reference(std::span<const double> logits, int64_t true_label,
                                      std::span<const int64_t> top_id, std::span<const double> top_logp,
                                      double tail_logp, const TopKSettings& settings, std::span<double> gradient);

}  // namespace coppice
