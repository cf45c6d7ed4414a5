// From token shards to batches: windows of seq_len + 1 tokens (packing by concatenation), a weighted mixture of domains
// by error feedback, and an order that is a pure function of (seed, epoch, index).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "src/data/windows.h"
#include "src/tokens/token_shards.h"

namespace coppice {

struct MixtureEntry {
  std::string domain;
  double weight = 1.0;
  double max_epochs = 0;  // 0 = no limit
};

struct LoaderOptions {
  int64_t seq_len = 256;
  bool document_mask = false;  // attention does not cross documents; positions restart
  uint64_t seed = 1;
  std::string stage = {};  // that reads: sources closed to it are refused; empty: nobody's
};

/// Draws sample after sample. The domain of sample i is the one furthest below its share of the samples drawn so far
/// (Megatron's error feedback; ties: first in the list); inside a domain the order is a keyed permutation of its
/// windows, a new key per epoch. A domain that reached its max_epochs is left out, and the others share what remains by
/// their weights. State: one integer per domain.
class Loader {
 public:
  /// Refuses (exit 3) a domain with no whole window, or with a source that is closed to the stage, naming it; `domains`
  /// outlive the loader and are in the order of `mixture`.
  Loader(std::vector<const TokenShards*> domains, std::vector<MixtureEntry> mixture, LoaderOptions options);

  /// The next `rows` samples as one batch; then position() has advanced by `rows`. UserError::recipe naming the domains
  /// when all have reached max_epochs; the position is then unchanged.
  Batch next(int64_t rows);
  /// Where these samples lie, a span each, in place of the batch: no token is read.
  std::vector<Span> next_spans(int64_t rows);
  /// The samples that lie there as one batch, a row each in this order.
  Batch read(std::span<const Span> spans) const;
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

}  // namespace coppice
