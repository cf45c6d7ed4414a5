// Ids drawn from softmax(logits / temperature) in place of the whole distribution: what they say of it is unbiased,
// however few they are (random sampling KD, arXiv 2503.16870). N rows, R draws a row, V vocabulary, q the teacher's
// probabilities, p the student's, tau the temperature of both.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "src/tensors/ops.h"

namespace coppice {

/// int64 [N, R]: the first id at which the sum of q over the ids up to it exceeds uniform_NR (float64 in [0, 1)). A
/// draw depends on its own row of hidden states and its own number alone. Logits in chunks. `facts`, when given, are
/// added to.
at::Tensor draw_ids(const at::Tensor& hidden_ND, const at::Tensor& head_VD, double temperature,
                    const at::Tensor& uniform_NR, TopFacts* facts = nullptr);

struct DrawnId {
  int64_t id = 0, count = 0;
};
/// The different ids of one row's draws, the most drawn first, the lower id first among equals.
std::vector<DrawnId> count_draws(std::span<const int64_t> ids);

/// Draws as the distribution that they are: log(count / R) of each different id, nothing left over. A row whose first
/// draw is below 0 has no teacher.
TopK shares_of_draws(const at::Tensor& id_NR);
/// The same of rows that stand in the order of count_draws already, equal ids side by side.
TopK shares_of_ordered_draws(const at::Tensor& id_NR);

/// (1 - w) ce + w tau^2 (mean over the draws of -log p[id]) + z_loss lse^2 for the training step, as
/// mixed_cross_entropy_step. Over the draws its mean is tau^2 times the cross-entropy of q and p, and the mean of its
/// gradient that of tau^2 KL(q, p).
LinearLoss drawn_cross_entropy_step(const HeadRows& rows, const TopK& shares, double teacher_weight, double temperature,
                                    double z_loss);

}  // namespace coppice
