// A cache is written a shard at a time: a label file of the token shard's name, then its entry in the manifest. A file
// without an entry is labelled again. What few tokens of a shard carry is packed: disk and memory follow the labels,
// not the shard.
#include "src/data/label_cache_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/data/label_cache_files.h"

namespace coppice {

namespace {

constexpr uint64_t kTopKChunk = 2048;  // rows of K
constexpr const char* kManifestLock = ".lock-manifest";

/// Labelled rows that lie side by side: of which tokens, and from which row of the labels on.
struct Stretch {
  TokenRun tokens;
  uint64_t row = 0;
};

/// In the order of tokens.
std::vector<Stretch> labelled_stretches(const ShardLabels& labels, const TokenShardInfo& shard) {
  const auto k = static_cast<uint64_t>(labels.k);
  std::vector<Stretch> stretches;
  uint64_t row = 0;
  for (const TokenRun& run : labels.runs) {
    COPPICE_CHECK(run.begin <= run.end && run.end <= shard.tokens,
                  fmt::format("labels of tokens {} to {} of {}", run.begin, run.end, shard.tokens));
    for (uint64_t token = run.begin; token < run.end; ++token, ++row) {
      if (labels.id[row * k] == kNoLabel) continue;
      if (!stretches.empty() && stretches.back().tokens.end == token &&
          stretches.back().row + stretches.back().tokens.size() == row) {
        ++stretches.back().tokens.end;
      } else {
        stretches.push_back({{token, token + 1}, row});
      }
    }
  }
  std::ranges::sort(stretches, {}, [](const Stretch& stretch) { return stretch.tokens.begin; });
  for (size_t i = 1; i < stretches.size(); ++i)
    COPPICE_CHECK(stretches[i - 1].tokens.end <= stretches[i].tokens.begin,
                  fmt::format("token {} is labelled twice", stretches[i].tokens.begin));
  return stretches;
}

/// As it lies in the file; no label is all bits one in every width.
void store_id(int32_t id, const LabelFingerprint& fingerprint, uint8_t* out) {
  static_assert(kNoLabel == -1);
  COPPICE_CHECK(id >= kNoLabel && id < fingerprint.vocab_size,
                fmt::format("label {} of a vocabulary of {}", id, fingerprint.vocab_size));
  std::memcpy(out, &id, static_cast<size_t>(label_packing(fingerprint)));
}
void store_ids(const int32_t* id, uint64_t count, const LabelFingerprint& fingerprint, uint8_t* out) {
  for (uint64_t i = 0; i < count; ++i, out += static_cast<size_t>(label_packing(fingerprint)))
    store_id(id[i], fingerprint, out);
}

/// The columns of a label file: rows in the order of its table, none of them a label in the gaps that it bridges.
struct PackedLabels {
  LabelTable table;
  std::vector<uint8_t> ids, repeats;  // repeats: of several draws
  std::vector<c10::Half> logp, tail;

  uint64_t num_ids(const LabelFingerprint& fingerprint) const {
    return ids.size() / static_cast<uint64_t>(label_packing(fingerprint));
  }

  std::vector<PackedColumn> columns(const LabelFingerprint& fingerprint) const {
    const auto k = static_cast<uint64_t>(fingerprint.k);
    const uint64_t rows = table.rows(), chunk = fingerprint.has_tail() && k > 1 ? kTopKChunk : kTokenChunk;
    const bool draws = fingerprint.has_draws();
    std::vector<PackedColumn> columns = {id_column(id_dataset(fingerprint), label_packing(fingerprint),
                                                   draws ? num_ids(fingerprint) : rows, draws ? 1 : k, chunk, ids)};
    if (draws && k > 1)
      columns.push_back({kRepeatsDataset, Hdf5Type::u8, {rows, repeat_bytes(k)}, kTokenChunk, repeats.data()});
    if (fingerprint.has_logp()) columns.push_back(half_column(logp_dataset(fingerprint), rows, k, chunk, logp.data()));
    if (fingerprint.has_tail()) columns.push_back(half_column(kTailDataset, rows, 1, kTokenChunk, tail.data()));
    if (!table.is_whole()) columns.push_back(table.column());
    return columns;
  }
};

/// What was drawn for each row of the table, in order; of rows without a label none, as often as there are draws.
void visit_draws(const ShardLabels& labels, const std::vector<Stretch>& stretches, const LabelTable& table,
                 const std::function<void(uint64_t row, std::span<const DrawnId> drawn)>& visit) {
  const auto k = static_cast<size_t>(labels.k);
  const std::vector<DrawnId> none = {{.id = kNoLabel, .count = labels.k}};
  std::vector<int64_t> ids(k);
  uint64_t done = 0;  // rows
  auto run = table.runs().begin();
  for (const auto& [tokens, row] : stretches) {
    while (run->end() < tokens.end) ++run;
    while (done < run->place + (tokens.begin - run->begin)) visit(done++, none);
    for (uint64_t i = row; i < row + tokens.size(); ++i) {
      std::copy_n(labels.id.data() + i * k, k, ids.data());
      visit(done++, count_draws(ids));
    }
  }
  while (done < table.rows()) visit(done++, none);
}

/// Draws of the table's rows: their different ids one after the other, and how often each was drawn.
void pack_draws(const ShardLabels& labels, const std::vector<Stretch>& stretches, const LabelFingerprint& fingerprint,
                PackedLabels& packed) {
  const auto k = static_cast<uint64_t>(fingerprint.k), bytes = repeat_bytes(k);
  const auto width = static_cast<size_t>(label_packing(fingerprint));
  packed.repeats.assign(packed.table.rows() * bytes, 0);
  uint64_t different = 0;
  visit_draws(labels, stretches, packed.table, [&](uint64_t row, std::span<const DrawnId> drawn) {
    COPPICE_CHECK(drawn.size() == 1 || std::ranges::find(drawn, kNoLabel, &DrawnId::id) == drawn.end(),
                  "a label of some draws and none");
    store_counts(drawn, packed.repeats.data() + row * bytes);
    different += drawn.size();
  });
  packed.ids.reserve(different * width);  // growing it would take up to three times that for a moment
  visit_draws(labels, stretches, packed.table, [&](uint64_t, std::span<const DrawnId> drawn) {
    for (const DrawnId& one : drawn) {
      packed.ids.resize(packed.ids.size() + width);
      store_id(static_cast<int32_t>(one.id), fingerprint, packed.ids.data() + packed.ids.size() - width);
    }
  });
}

PackedLabels pack_labels(const ShardLabels& labels, const TokenShardInfo& shard, const LabelFingerprint& fingerprint) {
  const c10::Half nothing = -std::numeric_limits<float>::infinity();
  const auto k = static_cast<uint64_t>(fingerprint.k), width = k * static_cast<uint64_t>(label_packing(fingerprint));
  const std::vector<Stretch> stretches = labelled_stretches(labels, shard);
  TokenRuns labelled;
  for (const Stretch& stretch : stretches) labelled.push_back(stretch.tokens);
  PackedLabels packed{
      .table = LabelTable::packed(merge_runs(std::move(labelled)), shard.tokens, label_row_bytes(fingerprint)),
      .ids = {},
      .repeats = {},
      .logp = {},
      .tail = {}};
  if (fingerprint.has_draws()) {
    pack_draws(labels, stretches, fingerprint, packed);
    return packed;
  }
  const uint64_t rows = packed.table.rows();
  packed.ids.assign(rows * width, 0xFF);
  if (fingerprint.has_logp()) packed.logp.assign(rows * k, nothing);
  if (fingerprint.has_tail()) packed.tail.assign(rows, nothing);
  auto run = packed.table.runs().begin();
  for (const auto& [tokens, row] : stretches) {
    while (run->end() < tokens.end) ++run;
    const uint64_t place = run->place + (tokens.begin - run->begin);
    store_ids(labels.id.data() + row * k, tokens.size() * k, fingerprint, packed.ids.data() + place * width);
    if (fingerprint.has_logp())
      std::copy_n(labels.logp.data() + row * k, tokens.size() * k, packed.logp.data() + place * k);
    if (fingerprint.has_tail()) std::copy_n(labels.tail.data() + row, tokens.size(), packed.tail.data() + place);
  }
  return packed;
}

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
  COPPICE_CHECK(labels.logp.size() == (fingerprint.has_logp() ? num_ids : 0) &&
                    labels.tail.size() == (fingerprint.has_tail() ? rows : 0),
                fmt::format("{} log-probabilities and {} tails for {} labels of {}", labels.logp.size(),
                            labels.tail.size(), num_ids, info.name));
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
