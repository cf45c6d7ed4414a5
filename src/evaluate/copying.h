// Copying from the context, the work of induction heads (Olsson et al. 2022, arXiv 2209.11895): random tokens, then the
// same once more. Text cannot help; who predicts the second time looks back.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "src/model/decoder.h"

namespace coppice {

/// How far behind a token its repetition stands: 8, 16, 32 .. as long as two runs of that length fit into seq_len.
std::vector<int64_t> copying_distances(int64_t seq_len);
/// Tokens that one model reads for all of them.
double copying_tokens(int64_t seq_len);
/// The runs of one distance, int64 [R, distance]: ids in random order, none twice in a run before all had their turn. R
/// is max(4, 512 / distance). A function of `ids` (two or more) and distance alone: the same for every model and in
/// every run.
at::Tensor copying_runs(std::span<const int64_t> ids, int64_t distance);

struct CopyingScore {
  int64_t distance = 0, positions = 0;  // positions: predictions scored
  double accuracy = 0;                  // share of them whose most probable token is the right one
  double loss = 0;                      // mean cross-entropy, nats
};
/// Every run twice, one behind the other, by distance: the predictions of the second run but for its first token, which
/// nothing announces. `ids` lie in the model's vocabulary; fewer than two: no scores. `before_batch` is called before
/// each forward pass of `batch_tokens` at most (one sequence at least).
std::vector<CopyingScore> score_copying(const Model& model, std::span<const int64_t> ids, int64_t seq_len,
                                        int64_t batch_tokens, const std::function<void()>& before_batch = {});

}  // namespace coppice
