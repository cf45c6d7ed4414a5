// Distillation from top-k probabilities in two terms (LFM2, arXiv 2511.23404): how much lies in the k ids S, and how it
// lies in them. The temperature softens the second alone, so that the first compares masses as they are and no
// temperature is asked of what nobody knows, the shares within the rest R. With p = softmax(z), q the stored
// probabilities (at temperature 1), P and Q the masses of S in them, b = softmax of z / tau in S, a that of log q /
// tau:
//   loss = (1 - w) (lse - z[true]) + w K + zeta lse^2
//   K = Q log(Q / P) + q_R log(q_R / (1 - P)) + tau^2 Q sum_S a log(a / b)
//   dK/dz = p (M - Q / P) + tau Q (b - a) in S,  p (M - q_R / (1 - P)) in R;   M = Q + q_R, 1 but for rounding
// At tau = 1 it is the loss of linear_top_k_cross_entropy.h, whose letters and parameters it shares.
#pragma once

#include "src/tensors/kernels/linear_top_k_cross_entropy.h"

namespace coppice {

void decoupled_top_k_cpu(const TopKCrossEntropyParams<float>& params);

// On a device, T = float or Bf16: in linear_top_k_cross_entropy.cu, as it is the same walk. Each enqueues and returns
// the launch's error, 0 for none.
namespace device {
template <class T>
int decoupled_top_k(const TopKCrossEntropyParams<T>& params, CUstream_st* stream);
}
namespace emulated {
template <class T>
int decoupled_top_k(const TopKCrossEntropyParams<T>& params, CUstream_st* stream);
}

/// One row in double; `gradient` (V values, scale 1) may be empty.
LossRow decoupled_top_k_reference(std::span<const double> logits, int64_t true_label, std::span<const int64_t> top_id,
                                  std::span<const double> top_logp, double tail_logp, const TopKSettings& settings,
                                  std::span<double> gradient);

/// The same over one part of a vocabulary, in two walks.
struct DecoupledStatistics {
  double largest = 0;
  double inside_1 = 0, rest_1 = 0;  // of exponentials with the largest taken off, in S and in R
  double inside_tau = 0;            // of those of z / tau, in S
  double cross = 0, share = 0;      // over S: sum a (log a - (z - largest) / tau), sum a
  double z_true = 0;                // where this part has it
  double top_1 = -1;                // id; -1 when not asked for
};
void decoupled_top_k_statistics_cpu(const TopKCrossEntropyParams<float>& params, DecoupledStatistics* statistics);
void decoupled_top_k_gradient_cpu(const TopKCrossEntropyParams<float>& params,
                                  const RowParts<DecoupledStatistics>& parts);

}  // namespace coppice
