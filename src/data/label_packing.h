// Labels of a shard as they lie in its file. Private to src/data.
#pragma once

#include <c10/util/Half.h>

#include <cstdint>
#include <vector>

#include "src/data/label_cache.h"
#include "src/data/label_table.h"
#include "src/tokens/columns.h"

namespace coppice {

/// The columns of a label file: rows in the order of its table, none of them a label in the gaps that it bridges.
struct PackedLabels {
  LabelTable table;
  std::vector<uint8_t> codes;         // of a coded file; the others are then empty
  std::vector<uint8_t> ids, repeats;  // repeats: of several draws
  std::vector<c10::Half> logp, tail;
  std::vector<c10::Half> log_weight;  // one for each of `ids`; of draws from a proposal

  uint64_t num_ids(const LabelFingerprint& fingerprint) const;
  /// To be written; their bytes stay here.
  std::vector<PackedColumn> columns(const LabelFingerprint& fingerprint) const;
};

/// Depends on the labels alone, not on the order in which they came.
PackedLabels pack_labels(const ShardLabels& labels, const TokenShardInfo& shard, const LabelFingerprint& fingerprint);

}  // namespace coppice
