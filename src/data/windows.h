// Windows of a shard and the rows of a batch that are made of them. Every token of a batch carries (domain, shard,
// offset).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "src/tensors/decoder_input.h"
#include "src/tensors/ignored_label.h"
#include "src/tokens/token_shards.h"

namespace coppice {

/// A run of tokens of one batch row that lie side by side in a shard.
struct Span {
  int32_t row = 0, column = 0, length = 0;
  int32_t domain = 0;   // position in the mixture's list of domains
  int32_t shard = 0;    // within the domain
  uint64_t offset = 0;  // of the first token
};

struct Batch {
  at::Tensor token_BT;     // int64
  at::Tensor position_BT;  // int64; with document_mask they restart at each document
  at::Tensor
      document_BT;  // int32 segment number within the row (for a document mask); undefined when document_mask is off
  at::Tensor true_label_BT;  // int64 next token; kIgnoredLabel where the target is in another document
  std::vector<Span> spans;   // cover every position
  int64_t num_live = 0;      // labels that count
  std::vector<int32_t>
      segment_end;        // of every segment, rows put end to end: cumulative lengths; empty when document_mask is off
  int64_t ids_below = 0;  // every token and label is; 0 = nobody has looked
  int64_t largest_position = -1;  // no position is larger; -1 = nobody has looked
  TokenOrder token_order = {};    // on a device, for its kernels
  DocumentBounds bounds = {};

  /// What a model reads of it.
  DecoderInput input() const {
    return {.token_BT = token_BT,
            .position_BT = position_BT,
            .document_BT = document_BT,
            .ids_below = ids_below,
            .largest_position = largest_position,
            .token_order = token_order,
            .bounds = bounds};
  }
};

/// Windows [i T, (i+1) T) of a domain's shards, with the target of the last token where it exists; windows never cross
/// shards. A shard of n tokens has floor((n-1)/T) windows.
struct WindowIndex {
  WindowIndex(const TokenShards& shards, int64_t seq_len);
  uint64_t num_windows = 0;
  struct Place {
    int32_t shard;
    uint64_t offset;
  };
  Place at(uint64_t window) const;
  std::vector<uint64_t> first_window;  // of each shard, and num_windows at the end
  int64_t seq_len = 0;
};

/// An empty batch of `rows` windows, to be filled row by row.
Batch make_batch(int64_t rows, int64_t seq_len, bool document_mask);
/// Fills one row, the first that is still empty, with the window at `place` and appends its span. Ids were checked when
/// the shards were opened; what the batch knows of them comes from there.
void fill_row(Batch& batch, int64_t row, const TokenShards& shards, int32_t domain, WindowIndex::Place place,
              bool document_mask);

/// Batches that walk one domain's windows once, in order: evaluation. Fills `batch`; false at the end.
class WindowReader {
 public:
  WindowReader(const TokenShards& shards, int64_t seq_len, bool document_mask,
               int64_t max_windows = -1);  // -1 = all; else evenly spread
  bool next(int64_t rows, Batch& batch);
  uint64_t num_windows() const;

 private:
  const TokenShards* shards_;
  WindowIndex index_;
  uint64_t next_ = 0, total_ = 0;
  bool document_mask_;
};

}  // namespace coppice
