// How likely a text is to go on one way or another: sums of log-probabilities of the last tokens of short sequences,
// many at once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "src/model/decoder.h"

namespace coppice {

/// The ids are kept by whoever asks.
struct Continuation {
  std::span<const int64_t> context, continuation;  // neither is empty
};

struct ContinuationScore {
  double log_likelihood = 0;  // log p(continuation | context) in nats: log-softmax in float32, summed in double
  bool is_greedy = false;     // each of its tokens is the most probable one (the lowest id of equals)
};

/// A sequence that the model reads, and the continuations that it answers.
struct ContinuationRow {
  int64_t length = 0;           // tokens
  std::vector<size_t> answers;  // the first is read whole, of the others the beginning of it
};

/// What is read for these continuations, the longest first. The input of a continuation is its context and the
/// continuation without its last token, as far as `max_length` reaches from the end; an input that is another's
/// beginning is no row of its own. So choices of one token behind one context are one row, as lm-evaluation-harness
/// reads them ("one-token continuations").
std::vector<ContinuationRow> continuation_rows(std::span<const Continuation> continuations, int64_t max_length);

/// Of a sequence longer than the positions the model knows the beginning is left out. Rows of similar length run
/// together, padded to the longest, `batch_tokens` at most (and one row at least); `before_batch` is called before each
/// run with the tokens of the rows that are done.
/// UserError::recipe for a token outside the vocabulary or a continuation longer than the model's positions.
std::vector<ContinuationScore> score_continuations(const Model& model, std::span<const Continuation> continuations,
                                                   int64_t batch_tokens,
                                                   const std::function<void(uint64_t)>& before_batch = {});

}  // namespace coppice
