// Windows of a shard and the rows made of them. The one place that decides which targets count: a token's target is the
// next token, unless the token is the last of its document (the end token); then the target lies in another document
// and is ignored. The end token itself is a target.
#include "src/data/windows.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"

namespace coppice {

WindowIndex::WindowIndex(const TokenShards& shards, int64_t seq_len) : seq_len(seq_len) {
  COPPICE_CHECK(seq_len > 0, fmt::format("seq_len {}", seq_len));
  first_window.push_back(0);
  for (const TokenShardInfo& shard : shards.shards()) {
    num_windows += (shard.tokens - 1) / static_cast<uint64_t>(seq_len);
    first_window.push_back(num_windows);
  }
}

WindowIndex::Place WindowIndex::at(uint64_t window) const {
  COPPICE_CHECK(window < num_windows, fmt::format("window {} of {}", window, num_windows));
  const auto next = std::upper_bound(first_window.begin(), first_window.end(), window);
  const size_t shard = static_cast<size_t>(next - first_window.begin()) - 1;
  return {static_cast<int32_t>(shard), (window - first_window[shard]) * static_cast<uint64_t>(seq_len)};
}

Batch make_batch(int64_t rows, int64_t seq_len, bool document_mask) {
  Batch batch;
  batch.token_BT = at::empty({rows, seq_len}, at::kLong);
  batch.position_BT = at::empty({rows, seq_len}, at::kLong);
  batch.true_label_BT = at::empty({rows, seq_len}, at::kLong);
  if (document_mask) batch.document_BT = at::empty({rows, seq_len}, at::kInt);
  return batch;
}

void fill_row(Batch& batch, int64_t row, const TokenShards& shards, int32_t domain, WindowIndex::Place place,
              bool document_mask) {
  const int64_t seq_len = batch.token_BT.size(1);
  COPPICE_CHECK(row == std::ssize(batch.spans), fmt::format("row {} after {}", row, batch.spans.size()));
  int64_t* const token = batch.token_BT.mutable_data_ptr<int64_t>() + row * seq_len;
  int64_t* const position = batch.position_BT.mutable_data_ptr<int64_t>() + row * seq_len;
  int64_t* const label = batch.true_label_BT.mutable_data_ptr<int64_t>() + row * seq_len;
  int32_t* const document = document_mask ? batch.document_BT.mutable_data_ptr<int32_t>() + row * seq_len : nullptr;

  const size_t shard = static_cast<size_t>(place.shard);
  const uint64_t count = static_cast<uint64_t>(seq_len);
  shards.read(shard, place.offset, count, token);
  std::copy(token + 1, token + seq_len, label);
  shards.read(shard, place.offset + count, 1, label + seq_len - 1);

  // One run per document: its last token has no target in this document.
  const std::vector<uint64_t>& ends = shards.document_ends(shard);
  auto end = std::upper_bound(ends.begin(), ends.end(), place.offset);
  int64_t live = seq_len;
  int32_t segment = 0;
  for (int64_t begin = 0; begin < seq_len; ++end, ++segment) {
    const bool ends_here = *end - place.offset <= count;
    const int64_t stop = ends_here ? static_cast<int64_t>(*end - place.offset) : seq_len;
    if (ends_here) {
      label[stop - 1] = kIgnoredLabel;
      --live;
    }
    for (int64_t t = begin; t < stop; ++t) position[t] = document_mask ? t - begin : t;
    if (document_mask) {
      std::fill(document + begin, document + stop, segment);
      batch.segment_end.push_back(static_cast<int32_t>(row * seq_len + stop));
    }
    batch.largest_position = std::max(batch.largest_position, position[stop - 1]);
    begin = stop;
  }
  batch.num_live += live;
  batch.ids_below = std::max(batch.ids_below, shards.vocab_size());
  batch.spans.push_back({.row = static_cast<int32_t>(row),
                         .column = 0,
                         .length = static_cast<int32_t>(seq_len),
                         .domain = domain,
                         .shard = place.shard,
                         .offset = place.offset});
}

WindowReader::WindowReader(const TokenShards& shards, int64_t seq_len, bool document_mask, int64_t max_windows)
    : shards_(&shards), index_(shards, seq_len), document_mask_(document_mask) {
  total_ = max_windows < 0 ? index_.num_windows : std::min(index_.num_windows, static_cast<uint64_t>(max_windows));
}

bool WindowReader::next(int64_t rows, Batch& batch) {
  if (next_ == total_) return false;
  const auto count = static_cast<int64_t>(std::min(total_ - next_, static_cast<uint64_t>(rows)));
  batch = make_batch(count, index_.seq_len, document_mask_);
  for (int64_t row = 0; row < count; ++row, ++next_) {
    // Evenly spread: window floor(i * all / total), in integers.
    const uint64_t all = index_.num_windows;
    const uint64_t window = next_ * (all / total_) + next_ * (all % total_) / total_;
    fill_row(batch, row, *shards_, 0, index_.at(window), document_mask_);
  }
  return true;
}

uint64_t WindowReader::num_windows() const { return total_; }

}  // namespace coppice
