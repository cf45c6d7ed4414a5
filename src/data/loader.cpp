// The mixture and the order inside a domain, both pure functions of counts: nothing but `drawn` has to be saved.
#include "src/data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/text/documents.h"

namespace coppice {

namespace {

void check_mixture(const std::vector<MixtureEntry>& mixture) {
  double sum = 0;
  for (const MixtureEntry& entry : mixture) {
    if (!(entry.weight >= 0) || !std::isfinite(entry.weight))
      throw UserError::recipe(
          "", fmt::format("domain '{}': weight: got {}, expected a number from 0", entry.domain, entry.weight));
    if (!(entry.max_epochs >= 0) || !std::isfinite(entry.max_epochs))
      throw UserError::recipe(
          "", fmt::format("domain '{}': max_epochs: got {}, expected a number from 0 (0 = no limit)", entry.domain,
                          entry.max_epochs));
    sum += entry.weight;
  }
  if (!(sum > 0) || !std::isfinite(sum)) throw UserError::recipe("", "the weights of the mixture sum to 0");
}

/// Samples that max_epochs allows; at least one, so that a small share of a small domain is not "no limit".
std::vector<uint64_t> sample_limits(const std::vector<MixtureEntry>& mixture, const std::vector<uint64_t>& windows) {
  std::vector<uint64_t> limit(mixture.size(), 0);
  for (size_t d = 0; d < mixture.size(); ++d) {
    const double samples = mixture[d].max_epochs * static_cast<double>(windows[d]);
    if (samples > 0 && samples < 0x1p63) limit[d] = std::max<uint64_t>(1, static_cast<uint64_t>(samples));
  }
  return limit;
}

}  // namespace

int next_domain(const std::vector<MixtureEntry>& mixture, const std::vector<uint64_t>& drawn,
                const std::vector<uint64_t>& limit) {
  const auto takes_part = [&](size_t d) { return mixture[d].weight > 0 && (limit[d] == 0 || drawn[d] < limit[d]); };
  double weights = 0;
  uint64_t samples = 0;
  for (size_t d = 0; d < mixture.size(); ++d) {
    if (!takes_part(d)) continue;
    weights += mixture[d].weight;
    samples += drawn[d];
  }
  int best = -1;
  double largest = 0;
  for (size_t d = 0; d < mixture.size(); ++d) {
    if (!takes_part(d)) continue;
    const double behind = mixture[d].weight / weights * static_cast<double>(std::max<uint64_t>(samples, 1)) -
                          static_cast<double>(drawn[d]);
    if (best < 0 || behind > largest) {
      best = static_cast<int>(d);
      largest = behind;
    }
  }
  return best;
}

std::vector<uint64_t> mixture_counts(const std::vector<MixtureEntry>& mixture, uint64_t samples,
                                     const std::vector<uint64_t>& windows) {
  check_mixture(mixture);
  const std::vector<uint64_t> limit =
      windows.empty() ? std::vector<uint64_t>(mixture.size(), 0) : sample_limits(mixture, windows);
  std::vector<uint64_t> drawn(mixture.size(), 0);
  for (uint64_t i = 0; i < samples; ++i) {
    const int domain = next_domain(mixture, drawn, limit);
    if (domain < 0) break;
    ++drawn[static_cast<size_t>(domain)];
  }
  return drawn;
}

Loader::Loader(std::vector<const TokenShards*> domains, std::vector<MixtureEntry> mixture, LoaderOptions options)
    : domains_(std::move(domains)),
      mixture_(std::move(mixture)),
      options_(std::move(options)),
      drawn_(mixture_.size(), 0) {
  COPPICE_CHECK(domains_.size() == mixture_.size() && !mixture_.empty(),
                fmt::format("{} domains for {} mixture entries", domains_.size(), mixture_.size()));
  check_mixture(mixture_);
  std::vector<uint64_t> windows;
  for (size_t d = 0; d < domains_.size(); ++d) {
    const WindowIndex& index = windows_.emplace_back(*domains_[d], options_.seq_len);
    if (index.num_windows == 0)
      throw UserError::bad_file(
          mixture_[d].domain,
          fmt::format("the domain is too short: {} tokens in {} shards hold no window of {} tokens and a target",
                      domains_[d]->num_tokens(), domains_[d]->shards().size(), options_.seq_len));
    const SourceRights* closed = closed_to(domains_[d]->sources(), options_.stage);
    if (closed != nullptr && !options_.stage.empty() && mixture_[d].weight > 0)
      throw UserError::bad_file(
          mixture_[d].domain,
          fmt::format("its token shards hold {}; the stage '{}' draws from it", closed_text(*closed), options_.stage));
    windows.push_back(index.num_windows);
  }
  limit_ = sample_limits(mixture_, windows);
}

Batch Loader::next(int64_t rows) { return read(next_spans(rows)); }

Batch Loader::read(std::span<const Span> spans) const {
  Batch batch = make_batch(std::ssize(spans), options_.seq_len, options_.document_mask);
  batch.spans.reserve(spans.size());
  int64_t row = 0;
  for (const Span& span : spans)
    fill_row(batch, row++, *domains_[static_cast<size_t>(span.domain)], span.domain, {span.shard, span.offset},
             options_.document_mask);
  return batch;
}

std::vector<Span> Loader::next_spans(int64_t rows) {
  COPPICE_CHECK(rows > 0, fmt::format("{} rows", rows));
  std::vector<uint64_t> drawn = drawn_;
  std::vector<Span> spans;
  for (int64_t row = 0; row < rows; ++row) {
    const int domain = next_domain(mixture_, drawn, limit_);
    if (domain < 0) {
      std::string names;
      for (const MixtureEntry& entry : mixture_)
        names += fmt::format("{}'{}' ({} epochs)", names.empty() ? "" : ", ", entry.domain, entry.max_epochs);
      throw UserError::recipe("", fmt::format("the mixture is exhausted after {} samples: every domain has reached "
                                              "max_epochs: {}; ask for fewer tokens or raise max_epochs",
                                              std::accumulate(drawn.begin(), drawn.end(), uint64_t{0}), names));
    }
    const size_t d = static_cast<size_t>(domain);
    const uint64_t windows = windows_[d].num_windows;
    const uint64_t epoch = drawn[d] / windows, index = drawn[d] % windows;
    // The name is part of the key: two domains of one size go through different orders, and a new domain leaves the
    // others' alone.
    const uint64_t seed = options_.seed ^ document_hash(mixture_[d].domain);
    const uint64_t window = permute(index, windows, seed, Purpose::data_order, epoch);
    const WindowIndex::Place place = windows_[d].at(window);
    spans.push_back({.row = static_cast<int32_t>(row),
                     .column = 0,
                     .length = static_cast<int32_t>(options_.seq_len),
                     .domain = domain,
                     .shard = place.shard,
                     .offset = place.offset});
    ++drawn[d];
  }
  drawn_ = std::move(drawn);
  return spans;
}

void Loader::restore(std::vector<uint64_t> drawn) {
  if (drawn.size() != mixture_.size())
    throw UserError::recipe("", fmt::format("the checkpoint counts samples of {} domains, the mixture has {}",
                                            drawn.size(), mixture_.size()));
  drawn_ = std::move(drawn);
}

uint64_t Loader::position() const { return std::accumulate(drawn_.begin(), drawn_.end(), uint64_t{0}); }

std::vector<double> Loader::epochs() const {
  std::vector<double> result;
  for (size_t d = 0; d < drawn_.size(); ++d)
    result.push_back(static_cast<double>(drawn_[d]) / static_cast<double>(windows_[d].num_windows));
  return result;
}

}  // namespace coppice
