// Labels in: JSONL of ours or of a served model (label_jsonl.h) becomes a cache.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "src/data/label_cache.h"
#include "src/data/label_jsonl.h"
#include "src/tokens/token_shards.h"

namespace coppice {

inline constexpr int64_t kPaddedRows = 1024;
inline constexpr double kLeastMass =
    0.01;  // of a token's ids where no tail is given; less on most tokens is no probability
inline constexpr double kMassAboveOne = 1e-3;  // what rounding may add to it

struct LabelImport {
  std::string format = "coppice";  // or vllm: what vLLM's prompt_logprobs hold, see import_labels
  bool low_mass = false;           // take log-probabilities of which most tokens hold less than kLeastMass
  std::string stage;               // label stage that messages name; empty = none
};

/// What the first line of a file of ours says; nothing for a file that starts with a document.
std::optional<LabelFingerprint> read_label_header(const std::filesystem::path& input);

/// Makes a cache of `fingerprint` from such a file; it appears whole, in place of what was there. A shard whose
/// documents have all come is written and leaves memory: documents in shard order need one shard, in any other order
/// more. They may be missing (what needs them is refused when the cache is opened). Documents of one id are told apart
/// by their tokens, then by their order. Lines say what is left out: documents that the shards do not hold; ids of a
/// padded output table (up to kPaddedRows beyond the vocabulary: 151,936 against 152,064), whose mass goes to the tail.
/// Format vllm: a line may hold {"id", "prompt_token_ids": [5, 6], "prompt_logprobs": [null, {"6": {"logprob": -0.1,
/// "rank": 1}, ...}]} as vLLM's RequestOutput does, entry i the distribution of token i; or the lists above. Ids come
/// in any order and number, the k most probable are kept and the others go to the tail; the tokens may be a document's
/// beginning or end, with a begin-of-text token in front and without end-of-text; null is no label. UserError::bad_file
/// naming the line for: a first line of ours with another fingerprint, bad JSON, a document that came before, other
/// tokens than the shards', lists of unequal length, ids outside the vocabulary or twice in a row, log-probabilities
/// above 0 or not in descending order, whose mass is above 1 or, on most tokens without a tail, next to nothing;
/// weights of draws that are no numbers, different for one id, or not 1 on average; labels that stand one place beside
/// their tokens (src/data/label_alignment.h); no document of the shards.
LabelTransfer import_labels(const std::filesystem::path& input, const TokenShards& shards,
                            const LabelFingerprint& fingerprint, const std::filesystem::path& cache,
                            const LabelImport& options = {});

}  // namespace coppice
