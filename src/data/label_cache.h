// Teacher labels keyed by data: label[i] of a shard is the teacher's choice for token i + 1 after reading token i.
//   top1       /top1 u16 [n] (vocabularies up to 65,535) or u8 [n, 3]; all bits one = no label
//   top1_prob  the same and /top1_logp f16 [n]
//   topk       /ids u16 | u32 [n, K], /logp f16 [n, K] descending, /tail f16 [n]: log of what the K ids leave over;
//              with code q8 all of it in /codes u8 [n, bytes a row] (label_codes.h)
//   hybrid     /codes of K ids, their log-probabilities, the log of the rest and draws of that
//   sample     /draws u16 [m] or u8 [m, 3]: the different ids of K draws, row after row; /repeats u8 [n, (K + 6) / 8]
//              where K > 1 (label_draws.h); where they are drawn from a proposal /log_weights f16 [m]: the log of what
//              a draw of each id weighs
// n is the shard's tokens, or, where few of them are labelled, the rows that the table /runs places (label_table.h).
// Any batch size, packing, seed and rank count reads the same cache; a finer tier serves every reader of a coarser one,
// but tier sample serves its own loss alone: draws do not tell the teacher's choice.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "src/base/json.h"
#include "src/data/windows.h"
#include "src/tensors/ops.h"
#include "src/tokens/token_runs.h"
#include "src/tokens/token_shards.h"

namespace coppice {

inline constexpr int32_t kNoLabel = -1;

/// Everything that decides the labels; all of it must match on opening.
struct LabelFingerprint {
  std::string teacher_sha256;  // weights and config, or a name given by the user to labels from elsewhere
  std::string tokenizer_sha256;
  int64_t vocab_size = 0;
  std::string token_manifest_sha256;
  std::string tier = "top1";             // top1, top1_prob, topk, hybrid or sample
  int64_t k = 1;                         // ids a token; 1 but in tiers topk, hybrid and sample (there: draws)
  int64_t draws = 0;                     // of what the ids leave over, in tier hybrid
  std::string code = "f16";              // q8: of tier topk
  double temperature = 1;                // of the stored probabilities; draws are made at it
  double proposal_temperature = 1;       // of tier sample: draws are made at temperature times it, with weights
  std::string window_rule = "document";  // aligned, or given (labels from elsewhere)
  int64_t context = 0, overlap = 0;
  std::string compute_dtype = "f32";
  uint64_t draw_seed = 0;  // of tiers sample and hybrid
  Json to_json() const;
  /// The fingerprint of a cache as its manifest tells it, for tools that expect no particular one.
  static LabelFingerprint from_json(const Json& json, const std::string& path);
  bool has_logp() const { return tier == "top1_prob" || has_tail(); }
  bool has_tail() const { return tier == "topk" || has_tail_draws(); }
  bool has_draws() const { return tier == "sample"; }
  bool has_weights() const { return has_draws() && proposal_temperature != 1; }
  bool has_tail_draws() const { return tier == "hybrid"; }
  bool is_drawn() const { return has_draws() || has_tail_draws(); }
  /// All of a label lies in one row of bytes (label_codes.h).
  bool is_coded() const { return code == "q8" || has_tail_draws(); }
};

/// What a label file takes for each label, at least (of several draws equal ids are stored once) and at most; and for
/// each run of tokens in its table.
uint64_t label_row_bytes(const LabelFingerprint& fingerprint);
uint64_t most_label_row_bytes(const LabelFingerprint& fingerprint);
inline constexpr uint64_t kLabelRunBytes = 24;

/// Labels of a shard's tokens, or of some of them: a row for each token of `runs`, which need no order.
struct ShardLabels {
  int64_t k = 1, draws = 0;
  bool has_logp = false, has_tail = false, has_weights = false;
  int64_t near_ties = -1;  // labels whose two best logits lie within 1e-5 of each other: another batch shape may choose
                           // the other; -1 = unknown
  TokenRuns runs;          // do not overlap
  std::vector<int32_t>
      id;  // rows K, kNoLabel = none; a row without a label has none in its first place and is not stored
  std::vector<c10::Half> logp;        // rows K; empty in tiers top1 and sample
  std::vector<c10::Half> tail;        // rows; empty but in tiers topk and hybrid
  std::vector<int32_t> drawn;         // rows draws, kNoLabel = none; empty but in tier hybrid
  std::vector<c10::Half> log_weight;  // rows K, equal ones of equal ids; empty but of draws from a proposal
  /// Rows without labels, to be filled.
  ShardLabels(const TokenRuns& of, const LabelFingerprint& fingerprint);
  ShardLabels(uint64_t tokens, const LabelFingerprint& fingerprint)
      : ShardLabels(TokenRuns{{0, tokens}}, fingerprint) {}
  /// More of them; returns the first's row.
  uint64_t append(TokenRun run);
};

/// Which tokens of a cache carry labels: every one, or some (a label stage that labelled only what its readers draw;
/// they check what they draw).
enum class LabelCoverage { all, some };

/// One domain's labels, opened and verified (sizes, hashes, ids, probabilities, fingerprint: exit 3 naming the field,
/// the shard or the document range without labels). Every token but the last of its document needs a label (with
/// `some`, none does); with window_rule "aligned" also those behind a shard's last window of `context` have none.
class LabelCache {
 public:
  LabelCache(const std::filesystem::path& folder, const TokenShards& shards, const LabelFingerprint& expected,
             LabelCoverage coverage = LabelCoverage::all);
  LabelCache(LabelCache&&) noexcept;
  ~LabelCache();
  int64_t k() const;
  const LabelFingerprint& fingerprint() const;
  /// The most probable id of `count` tokens (of draws: the most drawn), kNoLabel where none.
  void read(size_t shard, uint64_t begin, uint64_t count, int64_t* out) const;
  /// The first run of tokens without a label among these, [begin, end), within one document; last tokens of documents
  /// need none. Nothing when all have one.
  std::optional<std::pair<uint64_t, uint64_t>> first_gap(size_t shard, uint64_t begin, uint64_t count) const;
  /// k() draws a token (kNoLabel where none), equal ids side by side, the most drawn first, and the log of each one's
  /// weight where there are weights (fingerprint().has_weights(); otherwise `log_weight` is not looked at). Needs tier
  /// sample.
  void read_draws(size_t shard, uint64_t begin, uint64_t count, int64_t* id, float* log_weight) const;
  /// k() ids a token (kNoLabel where none), their log-probabilities, and the log of the rest, as they are stored: codes
  /// add up to 1 but for their rounding. Needs a tier with probabilities.
  void read_top_k(size_t shard, uint64_t begin, uint64_t count, int64_t* id, float* logp, float* tail) const;
  /// The same and the draws of the rest, fingerprint().draws a token in ascending order (kNoLabel where there is no
  /// rest, or no label). Needs tier hybrid.
  void read_hybrid(size_t shard, uint64_t begin, uint64_t count, int64_t* id, float* logp, float* tail,
                   int64_t* drawn) const;
  uint64_t labelled() const;  // tokens that have a label
  uint64_t bytes() const;     // of all files

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// What a cache's files hold, for a person: finished shards of all, labelled tokens of all, bytes of the files.
struct LabelShardSummary {
  std::string name;
  uint64_t tokens = 0, labelled = 0;
  std::pair<uint64_t, uint64_t>
      first_gap;           // the first run of tokens without a label, [begin, end); of an unfinished shard all
  int64_t near_ties = -1;  // -1 = unknown
  bool finished = false;
};
struct LabelCacheSummary {
  LabelFingerprint fingerprint;
  std::string domain;
  std::vector<LabelShardSummary> shard;  // of the token shards, finished or not
  uint64_t shards = 0, finished = 0, tokens = 0, labelled = 0, stored = 0,
           bytes = 0;     // stored: tokens of the finished shards
  int64_t near_ties = 0;  // of the finished shards that count them
};
/// Verifies hashes and checksums without the token shards. UserError::bad_file when something does not hold.
LabelCacheSummary summarise_labels(const std::filesystem::path& folder);
/// UserError::bad_file naming the first field that differs from what is expected.
void check_label_fingerprint(const Json& found, const LabelFingerprint& expected, const std::string& path);
/// What a cache's manifest says of it; no label is read.
LabelFingerprint read_label_fingerprint(const std::filesystem::path& folder);
/// Sum over the finished shards that count them, from the manifest.
int64_t count_near_ties(const std::filesystem::path& folder);

/// Every label of these caches is below it (ids are checked when a cache is opened); 0 without any.
int64_t labels_below(const std::vector<const LabelCache*>& caches);
/// Teacher labels of every position of a batch: int64 [B, T]; kIgnoredLabel where there is none. caches[d] belongs to
/// domain d of the batch's spans; nullptr = that domain has no labels.
at::Tensor lookup_labels(const std::vector<const LabelCache*>& caches, const Batch& batch);
/// The same with probabilities, [B T, K]; ids kIgnoredLabel where there is none. All caches have the same k. Coded
/// probabilities of a token and its tail are divided by their sum.
TopK lookup_top_k(const std::vector<const LabelCache*>& caches, const Batch& batch);
/// Draws as shares (src/tensors/draws.h), [B T, K]. All caches are of tier sample and have as many draws, with weights
/// or without.
TopK lookup_draws(const std::vector<const LabelCache*>& caches, const Batch& batch);
/// The ids with their probabilities, and the draws of the rest with their shares of it (src/tensors/draws.h), [B T, K +
/// draws]. All caches are of tier hybrid with the same k and draws.
TopK lookup_hybrid(const std::vector<const LabelCache*>& caches, const Batch& batch);

}  // namespace coppice
