// From token shards to batches: windows of seq_len + 1 tokens (packing by concatenation), a weighted mixture of domains
// by error feedback, and an order that is a pure function of (seed, epoch, index). Every token of a batch carries
// (domain, shard, offset).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/tokens/token_shards.h"

namespace coppice {

inline constexpr int64_t kIgnoredLabel = -100;

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
  at::Tensor true_label_BT;  // int64 next token; -100 where the target is in another document
  std::vector<Span> spans;   // cover every position
  int64_t num_live = 0;      // labels that are not -100
};

struct MixtureEntry {
  std::string domain;
  double weight = 1.0;
  double max_epochs = 0;  // 0 = no limit
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
/// Fills one row with the window at `place` and appends its span.
void fill_row(Batch& batch, int64_t row, const TokenShards& shards, int32_t domain, WindowIndex::Place place,
              bool document_mask);

struct LoaderOptions {
  int64_t seq_len = 256;
  bool document_mask = false;  // attention does not cross documents; positions restart
  uint64_t seed = 1;
};

/// Draws sample after sample. The domain of sample i is the one furthest below its share of the samples drawn so far
/// (Megatron's error feedback; ties: first in the list); inside a domain the order is a keyed permutation of its
/// windows, a new key per epoch. A domain that reached its max_epochs is left out, and the others share what remains by
/// their weights. State: one integer per domain.
class Loader {
 public:
  /// Refuses (exit 3) a domain with no whole window, naming it; `domains` outlive the loader and are in the order of
  /// `mixture`.
  Loader(std::vector<const TokenShards*> domains, std::vector<MixtureEntry> mixture, LoaderOptions options);

  /// The next `rows` samples as one batch; then position() has advanced by `rows`. UserError::recipe naming the domains
  /// when all have reached max_epochs; the position is then unchanged.
  Batch next(int64_t rows);
  /// Where these samples lie, a span each, in place of the batch: no token is read.
  std::vector<Span> next_spans(int64_t rows);
  const std::vector<uint64_t>& drawn() const { return drawn_; }  // samples per domain so far: the whole state
  /// Goes on after `drawn`; UserError::recipe when it counts other domains than the mixture.
  void restore(std::vector<uint64_t> drawn);
  uint64_t position() const;
  /// Epochs of each domain so far.
  std::vector<double> epochs() const;

 private:
  std::vector<const TokenShards*> domains_;
  std::vector<MixtureEntry> mixture_;
  std::vector<WindowIndex> windows_;
  LoaderOptions options_;
  std::vector<uint64_t> limit_;  // samples by max_epochs; 0 = none
  std::vector<uint64_t> drawn_;
};

/// The domain of the next sample after `drawn` samples per domain; limit[d] = samples it may give in all (0 = any
/// number). -1: all have reached it.
int next_domain(const std::vector<MixtureEntry>& mixture, const std::vector<uint64_t>& drawn,
                const std::vector<uint64_t>& limit);

/// Samples per domain after `samples` draws: what plan prints as tokens and epochs. With `windows` (per domain),
/// max_epochs counts; the sum is then below `samples` when everything is exhausted.
std::vector<uint64_t> mixture_counts(const std::vector<MixtureEntry>& mixture, uint64_t samples,
                                     const std::vector<uint64_t>& windows = {});

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
