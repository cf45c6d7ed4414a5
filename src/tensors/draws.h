// Ids drawn from softmax(logits / temperature) in place of the whole distribution: what they say of it is unbiased,
// however few they are (random sampling KD, arXiv 2503.16870). With the k most probable ids beside them, which are
// known exactly, draws are needed of the rest alone. N rows, R draws a row, K ids, V vocabulary, q the teacher's
// probabilities, p the student's, tau the temperature of both, r what ids are drawn from: q, or a proposal.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "src/tensors/ops.h"

namespace coppice {

/// int64 [N, R]: the first id at which the sum of q over the ids up to it exceeds uniform_NR (float64 in [0, 1)). A
/// draw depends on its own row of hidden states and its own number alone. Logits in chunks. `facts`, when given, are
/// those of its rows.
at::Tensor draw_ids(const at::Tensor& hidden_ND, const at::Tensor& head_VD, double temperature,
                    const at::Tensor& uniform_NR, TopFacts* facts = nullptr);

/// Draws, and the logarithm of what each weighs.
struct WeightedDraws {
  at::Tensor id_NR;          // int64
  at::Tensor log_weight_NR;  // float32; undefined where all weigh 1
};
/// Drawn from the proposal r = softmax(logits / (temperature proposal_temperature)) as draw_ids() draws from q, each
/// with its weight q / r. Weights are not divided by their sum: of one draw the mean of weight times anything is that
/// thing's mean under q. With proposal_temperature 1 plain draws.
WeightedDraws draw_weighted_ids(const at::Tensor& hidden_ND, const at::Tensor& head_VD, double temperature,
                                double proposal_temperature, const at::Tensor& uniform_NR, TopFacts* facts = nullptr);

struct DrawnId {
  int64_t id = 0, count = 0;
  float log_weight = 0;  // of one of these draws
};
/// The different ids of one row's draws, the most drawn first, the lower id first among equals. `log_weights`: of each
/// draw, equal ones of equal ids; empty where all weigh 1.
std::vector<DrawnId> count_draws(std::span<const int64_t> ids, std::span<const float> log_weights = {});

/// Draws as the distribution that they are, on average where they have weights: log(count weight / R) of each different
/// id, nothing left over. A row whose first draw is below 0 has no teacher.
TopK shares_of_draws(const WeightedDraws& draws);
inline TopK shares_of_draws(const at::Tensor& id_NR) { return shares_of_draws({.id_NR = id_NR, .log_weight_NR = {}}); }
/// The same by sorts and no loop over draws, as a device takes it; wherever the draws lie.
TopK sorted_shares_of_draws(const WeightedDraws& draws);
/// The same of rows on the host that stand in the order of count_draws already, equal ids side by side.
TopK shares_of_ordered_draws(const WeightedDraws& draws);

/// The head of a distribution, and what is drawn of the rest.
struct HeadAndDraws {
  TopK top;             // as top_k() gives it
  at::Tensor drawn_NR;  // int64, ascending; all below 0 where nothing is left over
};
/// Draw j is taken from the j-th of R equal parts of the rest's probability, ids in their order: where uniform_NR
/// (float64 in [0, 1)) says, (j + u) / R of the way. So an id is drawn R q / q_rest times on average, always by less
/// than two more or fewer. Depends on its own row alone. `facts`, when given, are those of its rows.
HeadAndDraws top_k_and_draws(const at::Tensor& hidden_ND, const at::Tensor& head_VD, int64_t k, double temperature,
                             const at::Tensor& uniform_NR, TopFacts* facts = nullptr);
/// Both as one distribution, [N, K + R]: log q of the k ids, then log(q_rest count / R) of each different id drawn,
/// nothing left over. On average over the draws it is q.
TopK shares_of_head_and_draws(const HeadAndDraws& both);
/// The same by sorts, as a device takes it; wherever they lie.
TopK sorted_shares_of_head_and_draws(const HeadAndDraws& both);

/// (1 - w) ce + w tau^2 (- sum of share log p[id]) + z_loss lse^2 for the training step, as mixed_cross_entropy_step.
/// Over the draws its mean is tau^2 times the cross-entropy of q and p, and the mean of its gradient that of tau^2
/// KL(q, p).
LinearLoss drawn_cross_entropy_step(const HeadRows& rows, const TopK& shares, double teacher_weight, double temperature,
                                    double z_loss);

}  // namespace coppice
