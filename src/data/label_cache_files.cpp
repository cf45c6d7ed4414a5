#include "src/data/label_cache_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "src/base/checked.h"
#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {

namespace {

Json read_any_manifest(const std::filesystem::path& folder) {
  return read_sealed(folder / "manifest.json", "coppice.labels", kLabelVersion);
}

}  // namespace

Json read_label_manifest(const std::filesystem::path& path, const LabelFingerprint& fingerprint) {
  Json manifest = read_sealed(path, "coppice.labels", kLabelVersion);
  check_label_fingerprint(object_at(manifest, "fingerprint", path.string()), fingerprint, path.string());
  array_at(manifest, "shards", path.string());
  return manifest;
}

bool find_label_entry(const Json& manifest, const std::string& name, const std::string& where, LabelEntry& entry) {
  for (const Json& item : manifest["shards"]) {
    if (string_at(item, "name", where) != name) continue;
    entry = {.bytes = unsigned_at(item, "bytes", where),
             .tokens = unsigned_at(item, "tokens", where),
             .sha256 = string_at(item, "sha256", where)};
    if (item.contains("rows")) entry.rows = unsigned_at(item, "rows", where);
    if (item.contains("ids")) entry.ids = unsigned_at(item, "ids", where);
    if (item.contains("near_ties")) entry.near_ties = static_cast<int64_t>(unsigned_at(item, "near_ties", where));
    return true;
  }
  return false;
}

namespace {

/// Rows that the columns must have, before one of them is opened.
uint64_t rows_of(const LabelEntry& entry, const LabelFingerprint& fingerprint, const std::string& where) {
  const uint64_t rows = entry.rows.value_or(entry.tokens);
  if (rows > entry.tokens)
    throw UserError::bad_file(where, fmt::format("{} labels for {} tokens (manifest)", rows, entry.tokens));
  if (checked_multiply(rows, label_row_bytes(fingerprint), where) > entry.bytes)
    throw UserError::bad_file(where, fmt::format("{} labels cannot lie in {} bytes", rows, entry.bytes));
  return rows;
}

/// Rows of the dataset of ids: one a label, and one a different id where labels are draws.
uint64_t id_rows_of(const LabelEntry& entry, const LabelFingerprint& fingerprint, const std::string& where) {
  const uint64_t rows = rows_of(entry, fingerprint, where), ids = entry.ids.value_or(rows);
  if (fingerprint.has_draws() != entry.ids.has_value() || ids < rows ||
      ids > checked_multiply(rows, fingerprint.has_draws() ? static_cast<uint64_t>(fingerprint.k) : 1, where) ||
      checked_multiply(ids, static_cast<uint64_t>(label_packing(fingerprint)), where) > entry.bytes)
    throw UserError::bad_file(
        where, fmt::format("{} different ids of {} labels of tier {} (manifest)", ids, rows, fingerprint.tier));
  return ids;
}

/// Rows in their order become the runs of tokens without a label, tokens without a row among them.
class BareTokens {
 public:
  explicit BareTokens(const LabelTable& table) : table_(table), run_(table.runs().begin()) {}
  /// The next row's token.
  uint64_t token_of(uint64_t row) {
    while (row >= run_->place + run_->length) ++run_;
    if (row == run_->place) add(behind_, run_->begin);
    behind_ = run_->begin + (row - run_->place) + 1;
    return behind_ - 1;
  }
  void add(uint64_t begin, uint64_t end) {
    if (!bare_.empty() && bare_.back().end == begin) {
      bare_.back().end = end;
    } else if (begin < end) {
      bare_.push_back({begin, end});
    }
  }
  TokenRuns finish() {
    add(behind_, table_.tokens());
    return std::move(bare_);
  }

 private:
  const LabelTable& table_;
  std::vector<LabelRun>::const_iterator run_;
  uint64_t behind_ = 0;  // the last row's token
  TokenRuns bare_;
};

}  // namespace

LabelFile::LabelFile(const std::filesystem::path& path, const LabelFingerprint& fingerprint, const LabelEntry& entry)
    : ids(path, id_dataset(fingerprint), label_packing(fingerprint), id_rows_of(entry, fingerprint, path.string()),
          fingerprint.has_draws() ? 1 : static_cast<uint64_t>(fingerprint.k)),
      table(entry.rows ? LabelTable::read(ids.file(), entry.bytes, *entry.rows, entry.tokens)
                       : LabelTable::whole(entry.tokens)),
      none(none_of(label_packing(fingerprint))),
      k(static_cast<uint64_t>(fingerprint.k)) {
  if (fingerprint.has_logp())
    logp =
        std::make_unique<HalfColumn>(path, logp_dataset(fingerprint), ids.rows(), static_cast<uint64_t>(fingerprint.k));
  if (fingerprint.has_tail()) tail = std::make_unique<HalfColumn>(path, kTailDataset, ids.rows());
  if (fingerprint.has_draws() && k > 1) counts = std::make_unique<DrawCounts>(path, table.rows(), k, ids.rows());
}

void LabelFile::read_ids(uint64_t row, uint64_t count, int64_t* out) const {
  if (counts == nullptr) {
    ids.read(row, count, out);
  } else {
    std::vector<uint32_t> times;
    const uint64_t place = counts->read(row, count, times);
    std::vector<int64_t> different(times.size());
    ids.read(place, different.size(), different.data());
    int64_t* to = out;
    for (size_t i = 0; i < times.size(); ++i) to = std::fill_n(to, times[i], different[i]);
  }
  std::replace(out, out + count * k, none, int64_t{kNoLabel});
}

void LabelFile::scan_draws(const std::function<void(uint64_t, std::span<const DrawnId>)>& visit) const {
  constexpr uint64_t kRows = 4096;  // whose counts are read at a time
  std::vector<uint32_t> times;
  std::vector<DrawnId> drawn;  // of the row under way
  uint64_t row = 0, known = 0, draws = 0;
  size_t next = 0;
  const auto check_unchanged = [&](bool unchanged) {  // counts were checked, and are read a second time here
    if (!unchanged)
      throw UserError::bad_file(
          ids.file().path().string(),
          fmt::format("{}: other counts than a moment ago, the file changes while it is read; see that "
                      "nothing writes to it, and run again",
                      kRepeatsDataset));
  };
  ids.scan([&](uint64_t, const std::vector<uint32_t>& block) {
    for (const uint32_t id : block) {
      if (next == times.size()) {
        check_unchanged(known < table.rows());
        const uint64_t count = std::min(kRows, table.rows() - known);
        counts->read(known, count, times);
        known += count;
        next = 0;
      }
      drawn.push_back({.id = id, .count = times[next]});
      draws += times[next++];
      if (draws < k) continue;
      visit(row++, drawn);
      drawn.clear();
      draws = 0;
    }
  });
  check_unchanged(row == table.rows());
}

TokenRuns LabelFile::unlabelled(const std::string& path, const LabelFingerprint& fingerprint) const {
  BareTokens bare(table);
  const auto check_id = [&](int64_t id, uint64_t token) {
    if (id >= fingerprint.vocab_size)
      throw UserError::bad_file(
          path, fmt::format("label {} of token {} is outside the vocabulary of {}", id, token, fingerprint.vocab_size));
  };
  if (counts != nullptr) {
    const auto order_of = [](const DrawnId& one) { return std::pair(-one.count, one.id); };
    std::vector<int64_t> different;  // ids of a row, sorted
    scan_draws([&](uint64_t row, std::span<const DrawnId> drawn) {
      const uint64_t token = bare.token_of(row);
      if (drawn.size() == 1 && drawn[0].id == none) return bare.add(token, token + 1);
      different.clear();
      for (const DrawnId& one : drawn) {
        check_id(one.id, token);
        different.push_back(one.id);
      }
      std::ranges::sort(different);
      if (std::ranges::adjacent_find(different) != different.end() || !std::ranges::is_sorted(drawn, {}, order_of))
        throw UserError::bad_file(path, fmt::format("the draws of token {} are not different ids, the most drawn "
                                                    "first and the lower first among equals",
                                                    token));
    });
    return bare.finish();
  }
  ids.scan([&](uint64_t first, const std::vector<uint32_t>& id) {
    for (size_t i = 0; i < id.size(); i += k) {
      const uint64_t token = bare.token_of(first + i / k);
      for (size_t j = i; j < i + k; ++j)
        if (id[j] != none) check_id(id[j], token);
      if (id[i] == none) bare.add(token, token + 1);  // fewer than k ids are no hole
    }
  });
  return bare.finish();
}

void LabelFile::check_probabilities(const std::string& path, const LabelFingerprint& fingerprint) const {
  if (!logp) return;
  const auto k = static_cast<size_t>(fingerprint.k);
  std::vector<float> mass(logp->rows(), 0.0f);
  logp->scan([&](uint64_t begin, const std::vector<float>& values) {
    for (size_t i = 0; i < values.size(); ++i) {
      const uint64_t row = begin + i / k;
      if (!(values[i] <= 0.01f))
        throw UserError::bad_file(path, fmt::format("log-probability {} at token {}", values[i], table.token_of(row)));
      if (i % k > 0 && values[i] > values[i - 1])
        throw UserError::bad_file(
            path, fmt::format("log-probabilities of token {} are not in descending order", table.token_of(row)));
      mass[row] += std::exp(values[i]);
    }
  });
  if (!tail) return;
  std::vector<char> labelled(mass.size(), 0);
  ids.scan([&](uint64_t begin, const std::vector<uint32_t>& id) {
    for (size_t i = 0; i < id.size(); i += k) labelled[begin + i / k] = id[i] < fingerprint.vocab_size;
  });
  tail->scan([&](uint64_t begin, const std::vector<float>& values) {
    for (size_t i = 0; i < values.size(); ++i)
      if (const float sum = mass[begin + i] + std::exp(values[i]);
          labelled[begin + i] && !(std::abs(sum - 1) <= kMassTolerance))
        throw UserError::bad_file(path,
                                  fmt::format("the probabilities of token {} and their tail add up to {}, expected 1",
                                              table.token_of(begin + i), sum));
  });
}

ShardLabels::ShardLabels(const TokenRuns& of, const LabelFingerprint& fingerprint)
    : k(fingerprint.k), has_logp(fingerprint.has_logp()), has_tail(fingerprint.has_tail()) {
  const uint64_t tokens = count_tokens(of);
  id.reserve(tokens * static_cast<uint64_t>(k));
  if (has_logp) logp.reserve(tokens * static_cast<uint64_t>(k));
  for (const TokenRun& run : of) append(run);
}

uint64_t ShardLabels::append(TokenRun run) {
  const c10::Half nothing = -std::numeric_limits<float>::infinity();
  const uint64_t first = id.size() / static_cast<uint64_t>(k), rows = first + run.size();
  if (!runs.empty() && runs.back().end == run.begin) {
    runs.back().end = run.end;
  } else {
    runs.push_back(run);
  }
  id.resize(rows * static_cast<uint64_t>(k), kNoLabel);
  if (has_logp) logp.resize(id.size(), nothing);
  if (has_tail) tail.resize(rows, nothing);
  return first;
}

LabelCacheSummary summarise_labels(const std::filesystem::path& folder) {
  const std::string where = (folder / "manifest.json").string();
  const Json manifest = read_any_manifest(folder);
  LabelCacheSummary summary{
      .fingerprint = LabelFingerprint::from_json(object_at(manifest, "fingerprint", where), where),
      .domain = string_at(manifest, "domain", where)};
  for (const Json& token_shard :
       array_at(manifest, manifest.contains("token_shards") ? "token_shards" : "shards", where)) {
    LabelShardSummary shard{.name = string_at(token_shard, "name", where),
                            .tokens = unsigned_at(token_shard, "tokens", where)};
    check_leaf_name(shard.name, where);
    LabelEntry entry;
    shard.finished = find_label_entry(manifest, shard.name, where, entry);
    if (shard.finished) {
      if (entry.tokens != shard.tokens)
        throw UserError::bad_file(
            where, fmt::format("{}: labels for {} tokens, the shard holds {}", shard.name, entry.tokens, shard.tokens));
      const std::filesystem::path path = folder / shard.name;
      check_listed_file(path, entry.bytes, entry.sha256);
      const LabelFile file(path, summary.fingerprint, entry);
      const TokenRuns bare = file.unlabelled(path.string(), summary.fingerprint);
      shard.labelled = shard.tokens - count_tokens(bare);
      if (!bare.empty()) shard.first_gap = {bare[0].begin, bare[0].end};
      file.check_probabilities(path.string(), summary.fingerprint);
      shard.near_ties = entry.near_ties;
      summary.near_ties += std::max<int64_t>(0, entry.near_ties);
      summary.stored += entry.tokens;
      summary.bytes += entry.bytes;
    } else {
      shard.first_gap = {0, shard.tokens};
    }
    ++summary.shards;
    summary.finished += shard.finished;
    summary.tokens += shard.tokens;
    summary.labelled += shard.labelled;
    summary.shard.push_back(std::move(shard));
  }
  return summary;
}

LabelFingerprint read_label_fingerprint(const std::filesystem::path& folder) {
  const std::string where = (folder / "manifest.json").string();
  return LabelFingerprint::from_json(object_at(read_any_manifest(folder), "fingerprint", where), where);
}

int64_t count_near_ties(const std::filesystem::path& folder) {
  const std::string where = (folder / "manifest.json").string();
  int64_t sum = 0;
  const Json manifest = read_any_manifest(folder);
  for (const Json& shard : array_at(manifest, "shards", where))
    if (shard.contains("near_ties")) sum += static_cast<int64_t>(unsigned_at(shard, "near_ties", where));
  return sum;
}

}  // namespace coppice
