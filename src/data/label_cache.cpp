#include "src/data/label_cache.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/data/label_cache_files.h"
#include "src/data/label_codes.h"
#include "src/tensors/draws.h"

namespace coppice {

namespace {

/// "documents 3 to 7 (of 40)" for tokens [begin, end) of a shard, counted from 0 within the shard.
std::string document_range(const TokenShards& shards, size_t shard, uint64_t begin, uint64_t end) {
  const std::vector<uint64_t>& ends = shards.document_ends(shard);
  const auto document_of = [&](uint64_t offset) {
    return std::upper_bound(ends.begin(), ends.end(), offset) - ends.begin();
  };
  return fmt::format("documents {} to {} of {} in {}, tokens {} to {}", document_of(begin), document_of(end - 1),
                     ends.size(), shards.shards()[shard].name, begin, end - 1);
}

}  // namespace

struct LabelCache::State {
  LabelFingerprint fingerprint;
  const TokenShards* shards;
  std::vector<LabelFile> files;
  std::vector<TokenRuns> unlabelled;  // of each shard
  uint64_t bytes = 0;
  mutable std::vector<int64_t> scratch;

  /// The first tokens of `bare` that need a label, within one document: all but the document's last one.
  std::optional<TokenRun> first_needed(size_t shard, TokenRun bare) const {
    const std::vector<uint64_t>& ends = shards->document_ends(shard);
    auto end = std::ranges::upper_bound(ends, bare.begin);
    while (bare.begin < bare.end && bare.begin + 1 == *end) ++bare.begin, ++end;
    if (bare.begin >= bare.end) return std::nullopt;
    return TokenRun{bare.begin, std::min(bare.end, *end - 1)};
  }

  /// A label wherever one is needed; with window_rule "aligned" none is behind the shard's last window.
  void check_covered(size_t shard, const std::string& path) const {
    const uint64_t context = static_cast<uint64_t>(std::max<int64_t>(1, fingerprint.context)),
                   tokens = files[shard].table().tokens();
    const uint64_t covered = fingerprint.window_rule == "aligned" ? (tokens - 1) / context * context : tokens;
    for (const TokenRun& bare : unlabelled[shard])
      if (const auto needed = first_needed(shard, {bare.begin, std::min(bare.end, covered)}))
        throw UserError::bad_file(path, "no labels for " + document_range(*shards, shard, needed->begin, bare.end));
  }

  void read_top_k(size_t shard, uint64_t begin, uint64_t count, int64_t* id, float* logp, float* tail,
                  int64_t* drawn) const;
};

void LabelCache::State::read_top_k(size_t shard, uint64_t begin, uint64_t count, int64_t* id, float* logp, float* tail,
                                   int64_t* drawn) const {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  COPPICE_CHECK(fingerprint.has_logp(), "tier " + fingerprint.tier + " holds no probabilities");
  const LabelFile& file = files.at(shard);
  const auto k = static_cast<uint64_t>(fingerprint.k), draws = static_cast<uint64_t>(fingerprint.draws);
  file.table().visit(begin, count, [&](uint64_t at, uint64_t part, uint64_t row) {
    int64_t* const to = drawn == nullptr ? nullptr : drawn + at * draws;
    if (row != LabelTable::kNoRow) return file.read_top_k(row, part, id + at * k, logp + at * k, tail + at, to);
    std::fill_n(id + at * k, part * k, kNoLabel);
    std::fill_n(logp + at * k, part * k, kNothing);
    std::fill_n(tail + at, part, kNothing);
    if (to != nullptr) std::fill_n(to, part * draws, kNoLabel);
  });
  if (fingerprint.has_tail()) return;
  for (uint64_t i = 0; i < count; ++i) tail[i] = std::log(std::max(0.0f, -std::expm1(logp[i])));
}

LabelCache::LabelCache(const std::filesystem::path& folder, const TokenShards& shards, const LabelFingerprint& expected,
                       LabelCoverage coverage)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.fingerprint = expected;
  s.shards = &shards;
  const std::filesystem::path manifest_path = folder / "manifest.json";
  const std::string where = manifest_path.string();
  const Json manifest = read_label_manifest(manifest_path, expected);
  if (shards.vocab_size() > expected.vocab_size)
    throw UserError::bad_file(where, fmt::format("labels of a vocabulary of {} cannot cover tokens of {}",
                                                 expected.vocab_size, shards.vocab_size()));
  s.bytes = std::filesystem::file_size(manifest_path);
  for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
    const TokenShardInfo& info = shards.shards()[shard];
    const std::filesystem::path path = folder / info.name;
    LabelEntry entry;
    if (!find_label_entry(manifest, info.name, where, entry))
      throw UserError::bad_file(where, "no labels for " + document_range(shards, shard, 0, info.tokens));
    if (entry.tokens != info.tokens)
      throw UserError::bad_file(
          where, fmt::format("{}: labels for {} tokens, the shard holds {}", info.name, entry.tokens, info.tokens));
    check_listed_file(path, entry.bytes, entry.sha256);
    s.bytes += entry.bytes;
    LabelFile file(path, expected, entry);
    if (file.file().string_attribute("/", "token_shard_sha256") != info.sha256)
      throw UserError::bad_file(path.string(),
                                "attribute token_shard_sha256: the labels belong to another token shard");
    s.unlabelled.push_back(file.check());
    file.finish_checks();
    s.files.push_back(std::move(file));
    if (coverage == LabelCoverage::all) s.check_covered(shard, path.string());
  }
}

LabelCache::LabelCache(LabelCache&&) noexcept = default;
LabelCache::~LabelCache() = default;

int64_t LabelCache::k() const { return state_->fingerprint.k; }
const LabelFingerprint& LabelCache::fingerprint() const { return state_->fingerprint; }

void LabelCache::read(size_t shard, uint64_t begin, uint64_t count, int64_t* out) const {
  const State& s = *state_;
  const auto k = static_cast<uint64_t>(s.fingerprint.k);
  const LabelFile& file = s.files.at(shard);
  file.table().visit(begin, count, [&](uint64_t at, uint64_t part, uint64_t row) {
    int64_t* const id = out + at;
    if (row == LabelTable::kNoRow) {
      std::fill_n(id, part, kNoLabel);
      return;
    }
    if (k == 1) return file.read_ids(row, part, id);
    s.scratch.resize(part * k);
    file.read_ids(row, part, s.scratch.data());
    for (uint64_t i = 0; i < part; ++i) id[i] = s.scratch[i * k];
  });
}

void LabelCache::read_draws(size_t shard, uint64_t begin, uint64_t count, int64_t* id, float* log_weight) const {
  const State& s = *state_;
  COPPICE_CHECK(s.fingerprint.has_draws(), "tier " + s.fingerprint.tier + " holds no draws");
  const LabelFile& file = s.files.at(shard);
  const auto k = static_cast<uint64_t>(s.fingerprint.k);
  const bool weighted = s.fingerprint.has_weights();
  COPPICE_CHECK(!weighted || log_weight != nullptr, "draws with weights, read without them");
  file.table().visit(begin, count, [&](uint64_t at, uint64_t part, uint64_t row) {
    if (row == LabelTable::kNoRow) {
      std::fill_n(id + at * k, part * k, kNoLabel);
      if (weighted) std::fill_n(log_weight + at * k, part * k, 0.0f);
    } else {
      file.read_draws(row, part, id + at * k, weighted ? log_weight + at * k : nullptr);
    }
  });
}

void LabelCache::read_top_k(size_t shard, uint64_t begin, uint64_t count, int64_t* id, float* logp, float* tail) const {
  state_->read_top_k(shard, begin, count, id, logp, tail, nullptr);
}

void LabelCache::read_hybrid(size_t shard, uint64_t begin, uint64_t count, int64_t* id, float* logp, float* tail,
                             int64_t* drawn) const {
  COPPICE_CHECK(state_->fingerprint.has_tail_draws(), "tier " + state_->fingerprint.tier + " holds no head and draws");
  state_->read_top_k(shard, begin, count, id, logp, tail, drawn);
}

std::optional<std::pair<uint64_t, uint64_t>> LabelCache::first_gap(size_t shard, uint64_t begin, uint64_t count) const {
  const TokenRuns& unlabelled = state_->unlabelled.at(shard);
  const uint64_t end = begin + count;
  for (auto bare = std::ranges::upper_bound(unlabelled, begin, {}, &TokenRun::end);
       bare != unlabelled.end() && bare->begin < end; ++bare)
    if (const auto needed = state_->first_needed(shard, {std::max(begin, bare->begin), std::min(end, bare->end)}))
      return std::pair(needed->begin, needed->end);
  return std::nullopt;
}

uint64_t LabelCache::labelled() const {
  uint64_t count = 0;
  for (size_t shard = 0; shard < state_->files.size(); ++shard)
    count += state_->files[shard].table().tokens() - count_tokens(state_->unlabelled[shard]);
  return count;
}

uint64_t LabelCache::bytes() const { return state_->bytes; }

int64_t labels_below(const std::vector<const LabelCache*>& caches) {
  int64_t bound = 0;
  for (const LabelCache* cache : caches)
    if (cache != nullptr) bound = std::max(bound, cache->fingerprint().vocab_size);
  return bound;
}

at::Tensor lookup_labels(const std::vector<const LabelCache*>& caches, const Batch& batch) {
  at::Tensor label_BT = at::full(batch.token_BT.sizes(), kIgnoredLabel, at::kLong);
  int64_t* const labels = label_BT.mutable_data_ptr<int64_t>();
  const int64_t seq_len = label_BT.size(1);
  for (const Span& span : batch.spans) {
    const LabelCache* const cache = caches.at(static_cast<size_t>(span.domain));
    if (cache == nullptr) continue;
    int64_t* const out = labels + span.row * seq_len + span.column;
    cache->read(static_cast<size_t>(span.shard), span.offset, static_cast<uint64_t>(span.length), out);
    for (int32_t i = 0; i < span.length; ++i)
      if (out[i] == kNoLabel) out[i] = kIgnoredLabel;
  }
  return label_BT;
}

namespace {

/// How many `what` a token all caches of a batch have, which must be one number; 1 without a cache.
int64_t shared_count(const std::vector<const LabelCache*>& caches, const char* what,
                     const std::function<int64_t(const LabelCache&)>& of) {
  int64_t count = 0;
  for (const LabelCache* cache : caches) {
    if (cache == nullptr) continue;
    COPPICE_CHECK(count == 0 || of(*cache) == count,
                  fmt::format("caches of {} and {} {} a token in one batch", count, of(*cache), what));
    count = of(*cache);
  }
  return std::max<int64_t>(1, count);
}

int64_t ids_per_token(const std::vector<const LabelCache*>& caches) {
  return shared_count(caches, "ids", [](const LabelCache& cache) { return cache.k(); });
}

/// Whether the draws of a batch have weights: all or none.
bool draws_have_weights(const std::vector<const LabelCache*>& caches) {
  std::optional<bool> weighted;
  for (const LabelCache* cache : caches) {
    if (cache == nullptr) continue;
    const bool one = cache->fingerprint().has_weights();
    COPPICE_CHECK(weighted.value_or(one) == one, "caches of draws with and without weights in one batch");
    weighted = one;
  }
  return weighted.value_or(false);
}

/// Probabilities of labelled rows add up to 1.
void normalise_rows(const TopK& top, int64_t first, int64_t count) {
  const int64_t k = top.id_NK.size(1);
  const int64_t* const id = top.id_NK.const_data_ptr<int64_t>();
  float *const logp = top.logp_NK.mutable_data_ptr<float>(), *const tail = top.tail_logp_N.mutable_data_ptr<float>();
  for (int64_t row = first; row < first + count; ++row)
    if (id[row * k] >= 0) normalise(logp + row * k, static_cast<uint64_t>(k), tail[row]);
}

}  // namespace

TopK lookup_draws(const std::vector<const LabelCache*>& caches, const Batch& batch) {
  const int64_t num_draws = ids_per_token(caches), seq_len = batch.token_BT.size(1);
  const bool weighted = draws_have_weights(caches);
  WeightedDraws draws{.id_NR = at::full({batch.token_BT.numel(), num_draws}, kNoLabel, at::kLong), .log_weight_NR = {}};
  if (weighted) draws.log_weight_NR = at::zeros(draws.id_NR.sizes(), at::kFloat);
  for (const Span& span : batch.spans) {
    const LabelCache* const cache = caches.at(static_cast<size_t>(span.domain));
    if (cache == nullptr) continue;
    const int64_t first = (span.row * seq_len + span.column) * num_draws;
    cache->read_draws(static_cast<size_t>(span.shard), span.offset, static_cast<uint64_t>(span.length),
                      draws.id_NR.mutable_data_ptr<int64_t>() + first,
                      weighted ? draws.log_weight_NR.mutable_data_ptr<float>() + first : nullptr);
  }
  return shares_of_ordered_draws(draws);
}

namespace {

/// The ids of a batch with their probabilities; drawn_NR of `draws` columns.
HeadAndDraws lookup_head(const std::vector<const LabelCache*>& caches, const Batch& batch, int64_t draws) {
  const int64_t k = ids_per_token(caches);
  const int64_t rows = batch.token_BT.numel(), seq_len = batch.token_BT.size(1);
  HeadAndDraws both{.top = {.id_NK = at::full({rows, k}, kIgnoredLabel, at::kLong),
                            .logp_NK = at::zeros({rows, k}, at::kFloat),
                            .tail_logp_N = at::zeros({rows}, at::kFloat)},
                    .drawn_NR = at::full({rows, draws}, kNoLabel, at::kLong)};
  int64_t *const ids = both.top.id_NK.mutable_data_ptr<int64_t>(), *const drawn =
                                                                       both.drawn_NR.mutable_data_ptr<int64_t>();
  float *const logp = both.top.logp_NK.mutable_data_ptr<float>(), *const tail =
                                                                      both.top.tail_logp_N.mutable_data_ptr<float>();
  for (const Span& span : batch.spans) {
    const LabelCache* const cache = caches.at(static_cast<size_t>(span.domain));
    if (cache == nullptr) continue;
    const int64_t first = span.row * seq_len + span.column;
    const auto shard = static_cast<size_t>(span.shard);
    const auto length = static_cast<uint64_t>(span.length);
    if (draws > 0) {
      cache->read_hybrid(shard, span.offset, length, ids + first * k, logp + first * k, tail + first,
                         drawn + first * draws);
    } else {
      cache->read_top_k(shard, span.offset, length, ids + first * k, logp + first * k, tail + first);
    }
    if (cache->fingerprint().is_coded()) normalise_rows(both.top, first, span.length);
    for (int64_t i = first * k; i < (first + span.length) * k; ++i)
      if (ids[i] == kNoLabel) ids[i] = kIgnoredLabel;
  }
  return both;
}

}  // namespace

TopK lookup_top_k(const std::vector<const LabelCache*>& caches, const Batch& batch) {
  return lookup_head(caches, batch, 0).top;
}

TopK lookup_hybrid(const std::vector<const LabelCache*>& caches, const Batch& batch) {
  const int64_t draws =
      shared_count(caches, "draws", [](const LabelCache& cache) { return cache.fingerprint().draws; });
  return shares_of_head_and_draws(lookup_head(caches, batch, draws));
}

}  // namespace coppice
