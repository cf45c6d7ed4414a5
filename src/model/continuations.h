// How likely a text is to go on one way or another: sums of log-probabilities of the last tokens of short sequences,
// many at once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "src/model/decoder.h"

namespace coppice {

struct Continuation {
  std::vector<int64_t> context, continuation;  // neither is empty
};

struct ContinuationScore {
  double log_likelihood = 0;  // log p(continuation | context) in nats: log-softmax in float32, summed in double
  bool is_greedy = false;     // each of its tokens is the most probable one (the lowest id of equals)
};

/// Of a sequence longer than the positions the model knows the beginning is left out. Sequences of similar length run
/// together, padded to the longest, `batch_tokens` at most (and one sequence at least); `before_batch` is called before
/// each run with the number of sequences that are done.
/// UserError::recipe for a token outside the vocabulary or a continuation longer than the model's positions.
std::vector<ContinuationScore> score_continuations(const Model& model, std::span<const Continuation> continuations,
                                                   int64_t batch_tokens,
                                                   const std::function<void(size_t)>& before_batch = {});

}  // namespace coppice
