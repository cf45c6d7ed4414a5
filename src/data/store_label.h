// What a line says of a token becomes a row of its shard's labels. Private to src/data.
#pragma once

#include <cstdint>

#include "src/data/label_line.h"

namespace coppice {

struct StoredToken {
  int64_t first = kNoLabel;  // its first id, the most probable one but in tier sample
  uint64_t padded = 0;       // ids of a padded output table, left out
};

/// Adds the label of one token, where it has some; UserError::bad_file naming the line for ids outside the vocabulary
/// or twice, and for draws that are none of what they are drawn from.
StoredToken store_label(const LinePlace& line, const LabelFingerprint& fingerprint, const TokenLabels& given,
                        uint64_t token, ShardLabels& labels);

}  // namespace coppice
