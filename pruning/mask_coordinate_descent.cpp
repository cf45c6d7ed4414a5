// coordinate_descent: Soft-Top-K by the published dual loop with a fixed number of rounds; kept to be compared with.
// Converged it equals the exact solver, unconverged it misses k (sum_error in the metrics says by how much) and its
// gradient is that of the loop. Not copied: an epsilon that decays once more before the last exp, and a division by
// epsilon inside the b update.
#include <ATen/ATen.h>

#include <cmath>

#include "pruning/mask_methods.h"

namespace coppice {

at::Tensor coordinate_descent(const at::Tensor& scores_RN, double k, double epsilon, int64_t rounds, bool scaled,
                              bool start_minus_s) {
  at::Tensor a_R1,
      b_RN = start_minus_s ? -scores_RN : at::zeros_like(scores_RN, scores_RN.options().requires_grad(false));
  double e = epsilon;
  for (int64_t round = 0; round < rounds; ++round) {
    if (scaled) e = std::max(epsilon, 4.0 * std::pow(0.7, static_cast<double>(round)));
    a_R1 = e * std::log(k) - e * ((scores_RN + b_RN) / e).logsumexp(/*dim=*/1, /*keepdim=*/true);
    b_RN = (-(scores_RN + a_R1)).clamp_max(0.0);
  }
  return ((scores_RN + a_R1 + b_RN) / e).exp();
}

std::unique_ptr<LearnedMask> make_coordinate_descent(const MaskTask& task) {
  return std::make_unique<ScoreMask>(task, [](const ScoreMask::Row& row, const MaskOptions& options) {
    return coordinate_descent(row.scaled_RN, row.k, row.epsilon, options.descent_rounds, options.descent_scaled,
                              options.descent_start == "minus_s");
  });
}

}  // namespace coppice
