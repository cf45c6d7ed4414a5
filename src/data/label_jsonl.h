// Labels made elsewhere, and ours for others: one JSON object a document and line, as a served model dumps its
// log-probabilities. Files end in .jsonl or .jsonl.zst.
//   {"id": "books/emma#3", "tokens": [5, 6, 2], "top_ids": [[6, 9], [2], []], "top_logprobs": [[-0.1, -2.5], [-0.3],
//   []], "tail_logprobs": [-4.1, -1.35, null]}
// top_ids[i] is the choice for the token after tokens[i], most probable first; an empty list = no label. top_logprobs
// is left out in tier top1; tail_logprobs, the log of what the ids leave over, may be left out (then it is what is
// missing to 1) and may hold null for nothing. In tier sample "draws" stands for all three: a token's K draws in any
// order, equal ids as often as they were drawn, or an empty list; where they are drawn from a proposal beside them
// "draw_log_weights": the log of what each of them weighs. In tier hybrid "tail_draws" stands beside the three:
// a token's draws of what its ids leave over, none of these ids, or an empty list where that is nothing. "doc", 16 hex
// digits of the id's XXH3-64, stands for "id" where only that is known: token shards keep no more. A first line of
// another kind, which our export writes and others may leave out, says where the labels come from and how they were
// made:
//   {"format": "coppice.labels.jsonl", "version": 1, "domain": "prose", "fingerprint": {"teacher_sha256": ..., "tier":
//   "topk", "k": 2, ...}, "near_ties": [4]}
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "src/data/label_cache.h"

namespace coppice {

inline constexpr const char* kLabelHeaderFormat = "coppice.labels.jsonl";
inline constexpr uint64_t kLabelHeaderVersion = 1;
inline constexpr const char* kDrawWeightsKey = "draw_log_weights";

struct LabelTransfer {
  uint64_t documents = 0, tokens = 0, labelled = 0;
  uint64_t left_out = 0;    // on import: documents that are held out or not in the token shards
  uint64_t padded_ids = 0;  // of a padded output table, left out on import
};

/// Writes the labels of a cache, documents in shard order, a document in memory at a time; documents without any are
/// left out. Log-probabilities and weights are written so that reading them gives the same half-precision numbers.
LabelTransfer export_labels(const std::filesystem::path& cache, const TokenShards& shards,
                            const std::filesystem::path& output);

}  // namespace coppice
