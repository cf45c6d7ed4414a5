// A cache is written a shard at a time: a label file of the token shard's name, then its entry in the manifest. A file
// without an entry is labelled again. What few tokens of a shard carry is packed: disk and memory follow the labels,
// not the shard.
#include "src/data/label_cache_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/data/label_cache_files.h"
#include "src/data/label_packing.h"

namespace coppice {

namespace {

constexpr const char* kManifestLock = ".lock-manifest";

}  // namespace

struct LabelCacheWriter::State {
  std::filesystem::path folder;
  const TokenShards* shards;
  LabelFingerprint fingerprint;
  std::vector<bool> done;

  std::filesystem::path manifest_path() const { return folder / "manifest.json"; }

  /// What is on disk now; an empty one when there is none yet.
  Json manifest() const {
    if (!std::filesystem::exists(manifest_path())) {
      Json all = Json::array();  // what the shards' labels are to cover
      for (const TokenShardInfo& shard : shards->shards())
        all.push_back({{"name", shard.name}, {"tokens", shard.tokens}});
      return {{"format", "coppice.labels"},     {"version", label_version(fingerprint, false)},
              {"domain", shards->domain()},     {"fingerprint", fingerprint.to_json()},
              {"token_shards", std::move(all)}, {"shards", Json::array()}};
    }
    Json manifest = read_label_manifest(manifest_path(), fingerprint);
    manifest.erase("sha256");  // seal() writes it anew
    return manifest;
  }

  /// What a killed holder of a file's lock left of it.
  void remove_leftovers(const std::string& name) const {
    std::vector<std::filesystem::path> leftovers;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().filename().string().starts_with(".tmp-" + name + "-")) leftovers.push_back(entry.path());
    for (const auto& path : leftovers) std::filesystem::remove(path);
  }

  /// True when the manifest lists the shard and its file holds; damaged or gone = labelled again.
  bool is_whole(const Json& manifest, size_t shard) const {
    const TokenShardInfo& info = shards->shards()[shard];
    LabelEntry entry;
    if (!find_label_entry(manifest, info.name, manifest_path().string(), entry) || entry.tokens != info.tokens)
      return false;
    try {
      check_listed_file(folder / info.name, entry.bytes, entry.sha256);
      return true;
    } catch (const UserError&) {
      return false;
    }
  }
};

LabelCacheWriter::LabelCacheWriter(std::filesystem::path folder, const TokenShards& shards,
                                   LabelFingerprint fingerprint)
    : state_(new State{std::move(folder), &shards, std::move(fingerprint),
                       std::vector<bool>(shards.shards().size(), false)}) {
  State& s = *state_;
  COPPICE_CHECK(s.fingerprint.vocab_size > 0 && s.fingerprint.vocab_size < (int64_t{1} << 24),
                fmt::format("vocab_size {}", s.fingerprint.vocab_size));
  COPPICE_CHECK(s.fingerprint.k >= 1 && (s.fingerprint.k == 1 || s.fingerprint.has_tail() || s.fingerprint.has_draws()),
                fmt::format("k {} in tier {}", s.fingerprint.k, s.fingerprint.tier));
  make_folder(s.folder);
  const Json manifest = s.manifest();
  for (size_t shard = 0; shard < s.done.size(); ++shard) s.done[shard] = s.is_whole(manifest, shard);
}

LabelCacheWriter::~LabelCacheWriter() = default;

bool LabelCacheWriter::has(size_t shard) const { return state_->done.at(shard); }

std::unique_ptr<FileLock> LabelCacheWriter::claim(size_t shard) {
  State& s = *state_;
  const std::string& name = s.shards->shards().at(shard).name;
  std::unique_ptr<FileLock> lock = FileLock::try_take(s.folder / (".lock-" + name.substr(0, name.find('.'))));
  if (lock == nullptr) return lock;
  s.done[shard] = s.is_whole(s.manifest(), shard);
  if (!s.done[shard]) s.remove_leftovers(name);
  return lock;
}

void LabelCacheWriter::write(size_t shard, const std::vector<int32_t>& label) {
  COPPICE_CHECK(state_->fingerprint.tier == "top1", "probabilities are missing in tier " + state_->fingerprint.tier);
  ShardLabels labels(label.size(), state_->fingerprint);
  labels.id = label;
  write(shard, labels);
}

void LabelCacheWriter::write(size_t shard, const ShardLabels& labels) {
  State& s = *state_;
  const TokenShardInfo& info = s.shards->shards().at(shard);
  const LabelFingerprint& fingerprint = s.fingerprint;
  const uint64_t rows = count_tokens(labels.runs), num_ids = rows * static_cast<uint64_t>(fingerprint.k);
  COPPICE_CHECK(labels.k == fingerprint.k && labels.id.size() == num_ids,
                fmt::format("{} labels of {} ids for {} tokens of {}", labels.id.size(), labels.k, rows, info.name));
  COPPICE_CHECK(
      labels.logp.size() == (fingerprint.has_logp() ? num_ids : 0) &&
          labels.tail.size() == (fingerprint.has_tail() ? rows : 0) &&
          labels.drawn.size() == rows * static_cast<uint64_t>(fingerprint.draws) &&
          labels.log_weight.size() == (fingerprint.has_weights() ? num_ids : 0),
      fmt::format("{} log-probabilities, {} tails, {} draws and {} weights for {} labels of {}", labels.logp.size(),
                  labels.tail.size(), labels.drawn.size(), labels.log_weight.size(), num_ids, info.name));
  const PackedLabels packed = pack_labels(labels, info, fingerprint);
  const std::vector<PackedColumn> columns = packed.columns(fingerprint);

  const std::filesystem::path path = s.folder / info.name, temporary = temporary_path(path);
  {
    Hdf5Writer file(temporary, 1);
    file.set_attribute("/", "format", "coppice.labels");
    file.set_attribute("/", "version", static_cast<uint64_t>(label_version(fingerprint, !packed.table.is_whole())));
    file.set_attribute("/", "vocab_size", static_cast<uint64_t>(fingerprint.vocab_size));
    file.set_attribute("/", "n_tokens", info.tokens);
    file.set_attribute("/", "token_shard_sha256", info.sha256);
    for (const PackedColumn& column : columns) write_column(file, column);
    file.close();
  }
  const CommittedFile file = verify_and_commit(temporary, path, columns);
  const FileLock lock(s.folder / kManifestLock);  // other processes add their shards
  s.remove_leftovers("manifest.json");
  Json manifest = s.manifest();
  Json& entries = manifest["shards"];
  for (size_t i = 0; i < entries.size(); ++i)
    if (entries[i]["name"] == info.name) entries.erase(i--);
  entries.push_back({{"name", info.name}, {"bytes", file.bytes}, {"sha256", file.sha256}, {"tokens", info.tokens}});
  if (!packed.table.is_whole()) entries.back()["rows"] = packed.table.rows();
  if (fingerprint.has_draws()) entries.back()["ids"] = packed.num_ids(fingerprint);
  if (labels.near_ties >= 0) entries.back()["near_ties"] = labels.near_ties;
  // In the order of names: the manifest of a finished cache does not depend on interruptions or on who labelled what.
  std::sort(entries.begin(), entries.end(),
            [](const Json& a, const Json& b) { return a["name"].get<std::string>() < b["name"].get<std::string>(); });
  manifest["version"] = label_version(
      fingerprint, std::ranges::any_of(entries, [](const Json& entry) { return entry.contains("rows"); }));
  write_file_atomically(s.manifest_path(), seal(manifest));
  s.done[shard] = true;
}

}  // namespace coppice
