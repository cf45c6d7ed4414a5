// Requests as token ids, as lm-evaluation-harness encodes them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/tasks/task_requests.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

/// What the model reads, and what of it is judged.
struct EncodedRequest {
  std::vector<int64_t> context, continuation;  // neither is empty
};

/// Context and continuation are encoded together, as one text, and the context's own ids are cut off: ids = enc(context
/// + continuation)[len(enc(context)):]. White space at the context's end belongs to the continuation. An empty context
/// is the prefix token: BOS, or EOS where the tokenizer has no BOS. `add_bos`: other contexts begin with BOS.
/// UserError::bad_file at `where` when the continuation adds no token of its own.
EncodedRequest encode_request(const Tokenizer& tokenizer, const TaskRequest& request, bool add_bos,
                              const std::string& where);

/// A text cut into windows of `max_length` tokens, each token judged once: the first window stands behind the prefix
/// token, the last one is filled up from the left with tokens that were judged already. Empty for a text without
/// tokens.
std::vector<EncodedRequest> rolling_windows(const Tokenizer& tokenizer, std::string_view text, bool add_bos,
                                            int64_t max_length);

/// A task as one tokenizer sees it.
struct EncodedTask {
  std::vector<EncodedRequest> requests;       // that are judged, document by document; of a rolling text its windows
  std::vector<size_t> counts;                 // requests of each document
  std::vector<std::vector<int64_t>> prompts;  // generate_until: one a document
};
/// For models that know `max_length` positions. UserError::bad_file for a continuation that is longer,
/// UserError::recipe for max_gen_toks that leave no room for a question.
EncodedTask encode_task(const Tokenizer& tokenizer, const PreparedTask& task, bool add_bos, int64_t max_length);

/// What is read before an answer is written: the newest `max_length - new_tokens` tokens, one at least.
std::vector<int64_t> encode_prompt(const Tokenizer& tokenizer, std::string_view context, bool add_bos,
                                   int64_t max_length, int64_t new_tokens);

}  // namespace coppice
