// A model's answers to a task (src/tasks): log-likelihoods of continuations, and text written until a stop.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "src/model/decoder.h"
#include "src/tasks/encode_request.h"
#include "src/tasks/task_scores.h"

namespace coppice {

/// Called before each forward pass (and each text that is written) with the tokens that are done, of num_tokens.
using AnswerProgress = std::function<void(uint64_t)>;

/// Of every document, one answer a request; `task` and `encoded` belong together. Requests of similar length run
/// together, `batch_tokens` at most (and one request at least); those that share what is read are read once
/// (continuation_rows).
std::vector<std::vector<TaskAnswer>> answer_task(const Model& model, const Tokenizer& tokenizer,
                                                 const PreparedTask& task, const EncodedTask& encoded,
                                                 int64_t batch_tokens, const AnswerProgress& progress = {});

/// The tokens that a model of `max_length` positions reads for the task, and those that it may write.
uint64_t num_tokens(const PreparedTask& task, const EncodedTask& encoded, int64_t max_length);

}  // namespace coppice
