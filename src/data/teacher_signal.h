// What a teacher says about a batch: the meeting place of those who make it (stored labels here, a live model in
// teacher/) and of the losses that read it. Plain tensors, so that nothing downstream can tell the difference.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "src/data/label_cache.h"
#include "src/data/windows.h"
#include "src/tensors/ops.h"

namespace coppice {

/// Losses that read the most probable ids of each token, draws from its distribution, or both: ids with their shares.
inline bool reads_top_k(const std::string& loss) {
  return loss == "top_k" || loss == "decoupled_top_k" || loss == "hybrid";
}
inline bool reads_draws(const std::string& loss) { return loss == "sample" || loss == "hybrid"; }
inline bool reads_some_ids(const std::string& loss) { return reads_top_k(loss) || reads_draws(loss); }

/// What a loss asks a teacher for.
struct SignalRequest {
  std::string loss = "labels";         // labels, one that reads some ids, or one that reads the whole distribution
  int64_t top_k = 64;                  // ids a token of losses that read them, from a live teacher
  double temperature = 1;              // of its probabilities
  double proposal_temperature = 1;     // of loss sample, from a live teacher: its draws are at temperature times it
  std::vector<int64_t> hidden_layers;  // counted from 1, whose outputs are compared; empty: none
  at::Tensor draw_number_NR = {};      // of losses that read draws, from a live teacher: draw_numbers() of the batch
};

/// What a loss does not need is undefined. B rows of T tokens, D and E widths, V vocabulary.
struct TeacherSignal {
  at::Tensor label_BT;               // loss labels: int64, below 0 = none
  TopK top;                          // losses that read some ids (draws with their shares), one row a token
  at::Tensor hidden_NE;              // losses kl, reverse_kl, jsd: the teacher's final hidden states and
  at::Tensor head_VE;                // its output table
  std::vector<at::Tensor> layer_ND;  // what leaves each of hidden_layers
  int64_t labels_below = 0;          // ids of label_BT and top are, where given; 0 = nobody has looked
  at::Tensor faults = {};            // int64 [], where the batch lies: tokens of which this cannot be; undefined: none
};

/// Stored labels of a batch, where it lies; caches[d] belongs to domain d of its spans. Positions without a label whose
/// next token counts are faults, unless `some`: whoever reads them has checked that they are there.
TeacherSignal stored_signal(const std::vector<const LabelCache*>& caches, const Batch& batch,
                            const SignalRequest& request, bool some);
/// InternalError of `faults` such positions.
void check_labelled(int64_t faults, const std::string& teacher);

}  // namespace coppice
