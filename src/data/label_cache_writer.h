// Label caches out: a shard at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "src/base/file_lock.h"
#include "src/data/label_cache.h"
#include "src/tokens/token_shards.h"

namespace coppice {

/// Writes one domain's labels, shard by shard; a shard file appears by rename when it is whole, then the manifest is
/// replaced: the unit of resuming. Several processes may write one cache: each labels the shards it can claim.
class LabelCacheWriter {
 public:
  /// Continues what a run with the same fingerprint left; UserError::bad_file naming the field for another one.
  LabelCacheWriter(std::filesystem::path folder, const TokenShards& shards, LabelFingerprint fingerprint);
  ~LabelCacheWriter();
  /// True when this shard was labelled by an earlier or another run with the same fingerprint and its file still holds.
  bool has(size_t shard) const;
  /// The shard's lock, and with it the right to write() it; nothing while another process has it. has() is up to date
  /// afterwards: the shard may have been finished since. The lock dies with its holder.
  std::unique_ptr<FileLock> claim(size_t shard);
  /// What is written depends on the labels alone, not on the order in which they came.
  void write(size_t shard, const ShardLabels& labels);
  /// Tier top1: one label per token of the shard, kNoLabel = none.
  void write(size_t shard, const std::vector<int32_t>& label);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coppice
