// The frozen model that labels: forward only, top-1 of fp32 logits, ties to the lowest id, or draws; one label per
// token, whatever the student's windows are.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "src/data/label_cache.h"
#include "src/model/decoder.h"
#include "src/tokens/token_shards.h"

namespace coppice {

struct LabelRule {
  std::string window_rule = "document";  // each document alone; "aligned": training windows of one seq_len
  int64_t context = 256;                 // tokens a window
  int64_t overlap = 64;                  // read but not labelled, except at a document's start
  int64_t batch_tokens = 8192;           // memory only: never changes a label beyond rounding; draws know none
  std::string teacher = "the teacher";   // what messages call it
};

/// Tokens [begin, begin + length) of a shard, read together from position 0; the first `skip` of them are not labelled.
struct LabelWindow {
  uint64_t begin = 0, length = 0, skip = 0;
};
/// The windows of one shard: together they label every token once. `document`: each document alone, windows `context -
/// overlap` apart; `aligned`: [iT, (i+1)T) with T = context and what is left over at the shard's end, whatever the
/// documents are.
std::vector<LabelWindow> label_windows(const std::vector<uint64_t>& document_ends, const LabelRule& rule);

/// Labels every token of one shard: the teacher's choice for token i + 1. `progress(tokens done)` may throw Stopped.
std::vector<int32_t> label_shard(const Model& teacher, const TokenShards& shards, size_t shard, const LabelRule& rule,
                                 const std::function<void(uint64_t)>& progress);
/// Labels of the tokens of `wanted` (in order, apart from each other), each from the window that owns it, in any tier:
/// `fingerprint` says tier, k, draws, temperatures and draw_seed. Counts near ties; not of tiers that draw, whose
/// windows are each read alone: the shape of a pass rounds its logits, and a draw near a boundary would be another id.
/// UserError::bad_file where the teacher's logits are not finite.
ShardLabels label_shard_tier(const Model& teacher, const TokenShards& shards, size_t shard, const LabelRule& rule,
                             const LabelFingerprint& fingerprint, const std::function<void(uint64_t)>& progress,
                             const TokenRuns& wanted);
/// Of all tokens.
ShardLabels label_shard_tier(const Model& teacher, const TokenShards& shards, size_t shard, const LabelRule& rule,
                             const LabelFingerprint& fingerprint, const std::function<void(uint64_t)>& progress);

/// UserError::bad_file when the logits of some tokens were not finite: a teacher's choices would be arbitrary.
void check_finite(int64_t tokens, const std::string& teacher);

}  // namespace coppice
