#include "src/data/label_cache_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

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

ShardLabels::ShardLabels(const TokenRuns& of, const LabelFingerprint& fingerprint)
    : k(fingerprint.k),
      draws(fingerprint.draws),
      has_logp(fingerprint.has_logp()),
      has_tail(fingerprint.has_tail()),
      has_weights(fingerprint.has_weights()) {
  const uint64_t tokens = count_tokens(of);
  id.reserve(tokens * static_cast<uint64_t>(k));
  if (has_logp) logp.reserve(tokens * static_cast<uint64_t>(k));
  if (has_weights) log_weight.reserve(tokens * static_cast<uint64_t>(k));
  drawn.reserve(tokens * static_cast<uint64_t>(draws));
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
  if (has_weights) log_weight.resize(id.size(), 0.0f);
  drawn.resize(rows * static_cast<uint64_t>(draws), kNoLabel);
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
      const TokenRuns bare = file.check();
      shard.labelled = shard.tokens - count_tokens(bare);
      if (!bare.empty()) shard.first_gap = {bare[0].begin, bare[0].end};
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
