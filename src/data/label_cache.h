// Teacher labels keyed by data: label[i] of a shard is the teacher's choice for token i + 1 after reading token i.
// 2 bytes a token for vocabularies up to 65,535, else 3; all bits one = no label. Any batch size, packing and seed reads the same cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/data/loader.h"
#include "src/data/token_shards.h"

namespace coppice {

inline constexpr int32_t kNoLabel = -1;

/// Everything that decides the labels; all of it must match on opening.
struct LabelFingerprint {
  std::string teacher_sha256;  // weights and config
  std::string tokenizer_sha256;
  int64_t vocab_size = 0;
  std::string token_manifest_sha256;
  std::string tier = "top1";
  std::string window_rule = "document";  // or "aligned"
  int64_t context = 0, overlap = 0;
  std::string compute_dtype = "f32";
  Json to_json() const;
};

/// Writes one domain's labels, shard by shard; a shard file appears by rename when it is whole, then the manifest is replaced: the unit of resuming.
class LabelCacheWriter {
 public:
  /// Continues what a run with the same fingerprint left; UserError::bad_file naming the field for another one.
  LabelCacheWriter(std::filesystem::path folder, const TokenShards& shards, LabelFingerprint fingerprint);
  ~LabelCacheWriter();
  /// True when this shard was labelled by an earlier run with the same fingerprint and its file still holds.
  bool has(size_t shard) const;
  /// label: one per token of the shard, kNoLabel = none.
  void write(size_t shard, const std::vector<int32_t>& label);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Which tokens of a cache carry labels: every one, or some (a label stage that labelled only what its readers draw; they check what they draw).
enum class LabelCoverage { all, some };

/// One domain's labels, opened and verified (sizes, hashes, ids, fingerprint: exit 3 naming the field, the shard or the document range without labels).
/// Every token but the last of its document needs a label (with `some`, none does); with window_rule "aligned" also those behind a shard's last window of
/// `context` have none.
class LabelCache {
 public:
  LabelCache(const std::filesystem::path& folder, const TokenShards& shards, const LabelFingerprint& expected, LabelCoverage coverage = LabelCoverage::all);
  LabelCache(LabelCache&&) noexcept;
  ~LabelCache();
  void read(size_t shard, uint64_t begin, uint64_t count, int64_t* out) const;  // kNoLabel where none
  uint64_t bytes() const;                                                       // of all files

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Teacher labels of every position of a batch: int64 [B, T]; kIgnoredLabel where there is none. caches[d] belongs to domain d of the batch's spans;
/// nullptr = that domain has no labels.
at::Tensor lookup_labels(const std::vector<const LabelCache*>& caches, const Batch& batch);

}  // namespace coppice
