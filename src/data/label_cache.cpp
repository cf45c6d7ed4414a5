// Label files: one per token shard, of the same name. A file without an entry in the manifest is labelled again.
#include "src/data/label_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/data/columns.h"

namespace coppice {

namespace {

constexpr int kVersion = 1;
constexpr uint64_t kTableChunk = 2048;   // rows of K
constexpr double kMassTolerance = 0.05;  // what a row's stored probabilities may add up to beside 1: half precision of up to some thousand ids
constexpr const char* kManifestLock = ".lock-manifest";

IdPacking label_packing(const LabelFingerprint& fingerprint) {
  if (fingerprint.vocab_size <= 65535) return IdPacking::two_bytes;
  return fingerprint.has_tail() ? IdPacking::four_bytes : IdPacking::three_bytes;
}
uint32_t none_of(IdPacking packing) { return packing == IdPacking::four_bytes ? kNoId : (uint32_t{1} << (8 * static_cast<int>(packing))) - 1; }

/// Names of a tier's datasets: ids, log-probabilities, tail.
const char* id_dataset(const LabelFingerprint& fingerprint) { return fingerprint.has_tail() ? "/ids" : "/top1"; }
const char* logp_dataset(const LabelFingerprint& fingerprint) { return fingerprint.has_tail() ? "/logp" : "/top1_logp"; }
constexpr const char* kTailDataset = "/tail";

struct Entry {
  uint64_t bytes = 0, tokens = 0;
  std::string sha256;
  int64_t near_ties = -1;
};

std::string text_of(const Json& value) { return printable(value.is_string() ? value.get<std::string>() : value.dump()); }

/// Every field of the expected fingerprint, by name, and no other.
void check_fingerprint(const Json& found, const Json& expected, const std::string& path) {
  const auto check = [&](const std::string& name) {
    const Json& value = expected[name];
    if (!found.contains(name)) throw UserError::bad_file(path, fmt::format("the labels' fingerprint has no field {}", name));
    if (found[name] != value)
      throw UserError::bad_file(path, fmt::format("the labels were made with another {}: found {}, expected {}", name, text_of(found[name]), text_of(value)));
  };
  check("tokenizer_sha256");  // other tokens follow from it
  for (const auto& [name, value] : expected.items()) check(name);
  for (const auto& [name, value] : found.items())
    if (!expected.contains(name)) throw UserError::bad_file(path, fmt::format("the labels' fingerprint has an unknown field {}", printable(name)));
}

Json read_manifest(const std::filesystem::path& path, const Json& fingerprint) {
  Json manifest = read_sealed(path, "coppice.labels", kVersion);
  check_fingerprint(object_at(manifest, "fingerprint", path.string()), fingerprint, path.string());
  array_at(manifest, "shards", path.string());
  return manifest;
}

/// The entry of a shard's label file, if there is one.
bool find_entry(const Json& manifest, const std::string& name, const std::string& where, Entry& entry) {
  for (const Json& item : manifest["shards"]) {
    if (string_at(item, "name", where) != name) continue;
    entry = {unsigned_at(item, "bytes", where), unsigned_at(item, "tokens", where), string_at(item, "sha256", where),
             item.contains("near_ties") ? static_cast<int64_t>(unsigned_at(item, "near_ties", where)) : -1};
    return true;
  }
  return false;
}

/// "documents 3 to 7 (of 40)" for tokens [begin, end) of a shard, counted from 0 within the shard.
std::string document_range(const TokenShards& shards, size_t shard, uint64_t begin, uint64_t end) {
  const std::vector<uint64_t>& ends = shards.document_ends(shard);
  const auto document_of = [&](uint64_t offset) { return std::upper_bound(ends.begin(), ends.end(), offset) - ends.begin(); };
  return fmt::format("documents {} to {} of {} in {}, tokens {} to {}", document_of(begin), document_of(end - 1), ends.size(), shards.shards()[shard].name,
                     begin, end - 1);
}

}  // namespace

Json LabelFingerprint::to_json() const {
  return {{"teacher_sha256", teacher_sha256},
          {"tokenizer_sha256", tokenizer_sha256},
          {"vocab_size", vocab_size},
          {"token_manifest_sha256", token_manifest_sha256},
          {"tier", tier},
          {"k", k},
          {"temperature", fmt::format("{}", temperature)},
          {"window_rule", window_rule},
          {"context", context},
          {"overlap", overlap},
          {"compute_dtype", compute_dtype},
          {"teacher_mode", "eval"}};
}

LabelFingerprint LabelFingerprint::from_json(const Json& json, const std::string& path) {
  LabelFingerprint fingerprint{.teacher_sha256 = string_at(json, "teacher_sha256", path),
                               .tokenizer_sha256 = string_at(json, "tokenizer_sha256", path),
                               .vocab_size = static_cast<int64_t>(unsigned_at(json, "vocab_size", path)),
                               .token_manifest_sha256 = string_at(json, "token_manifest_sha256", path),
                               .tier = string_at(json, "tier", path),
                               .k = static_cast<int64_t>(unsigned_at(json, "k", path)),
                               .temperature = std::strtod(string_at(json, "temperature", path).c_str(), nullptr),
                               .window_rule = string_at(json, "window_rule", path),
                               .context = static_cast<int64_t>(unsigned_at(json, "context", path)),
                               .overlap = static_cast<int64_t>(unsigned_at(json, "overlap", path)),
                               .compute_dtype = string_at(json, "compute_dtype", path)};
  const bool known = fingerprint.tier == "top1" || fingerprint.tier == "top1_prob" || fingerprint.tier == "topk";
  if (!known || fingerprint.vocab_size <= 0 || fingerprint.vocab_size >= (int64_t{1} << 24) || fingerprint.k < 1 || fingerprint.k > fingerprint.vocab_size ||
      (fingerprint.k > 1 && !fingerprint.has_tail()) || !(fingerprint.temperature > 0))
    throw UserError::bad_file(path, fmt::format("labels of tier '{}' with k {}, temperature {} and a vocabulary of {}", printable(fingerprint.tier),
                                                fingerprint.k, fingerprint.temperature, fingerprint.vocab_size));
  return fingerprint;
}

ShardLabels::ShardLabels(uint64_t tokens, const LabelFingerprint& fingerprint) : k(fingerprint.k), id(tokens * static_cast<uint64_t>(k), kNoLabel) {
  const c10::Half nothing = -std::numeric_limits<float>::infinity();
  if (fingerprint.has_logp()) logp.assign(id.size(), nothing);
  if (fingerprint.has_tail()) tail.assign(tokens, nothing);
}

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
      for (const TokenShardInfo& shard : shards->shards()) all.push_back({{"name", shard.name}, {"tokens", shard.tokens}});
      return {{"format", "coppice.labels"},     {"version", kVersion},    {"domain", shards->domain()}, {"fingerprint", fingerprint.to_json()},
              {"token_shards", std::move(all)}, {"shards", Json::array()}};
    }
    Json manifest = read_manifest(manifest_path(), fingerprint.to_json());
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
    Entry entry;
    if (!find_entry(manifest, info.name, manifest_path().string(), entry) || entry.tokens != info.tokens) return false;
    try {
      check_listed_file(folder / info.name, entry.bytes, entry.sha256);
      return true;
    } catch (const UserError&) {
      return false;
    }
  }
};

LabelCacheWriter::LabelCacheWriter(std::filesystem::path folder, const TokenShards& shards, LabelFingerprint fingerprint)
    : state_(new State{std::move(folder), &shards, std::move(fingerprint), std::vector<bool>(shards.shards().size(), false)}) {
  State& s = *state_;
  COPPICE_CHECK(s.fingerprint.vocab_size > 0 && s.fingerprint.vocab_size < (int64_t{1} << 24), fmt::format("vocab_size {}", s.fingerprint.vocab_size));
  COPPICE_CHECK(s.fingerprint.k >= 1 && (s.fingerprint.k == 1 || s.fingerprint.has_tail()),
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
  ShardLabels labels(0, state_->fingerprint);
  labels.id = label;
  write(shard, labels);
}

void LabelCacheWriter::write(size_t shard, const ShardLabels& labels) {
  State& s = *state_;
  const TokenShardInfo& info = s.shards->shards().at(shard);
  const LabelFingerprint& fingerprint = s.fingerprint;
  const auto k = static_cast<uint64_t>(fingerprint.k);
  COPPICE_CHECK(labels.k == fingerprint.k && labels.id.size() == info.tokens * k,
                fmt::format("{} labels for {} tokens of {}", labels.id.size(), info.tokens, info.name));
  COPPICE_CHECK(labels.logp.size() == (fingerprint.has_logp() ? labels.id.size() : 0) && labels.tail.size() == (fingerprint.has_tail() ? info.tokens : 0),
                fmt::format("{} log-probabilities and {} tails for {} labels of {}", labels.logp.size(), labels.tail.size(), labels.id.size(), info.name));
  std::vector<uint32_t> ids(labels.id.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const int32_t id = labels.id[i];
    COPPICE_CHECK(id == kNoLabel || (id >= 0 && id < fingerprint.vocab_size), fmt::format("label {} of a vocabulary of {}", id, fingerprint.vocab_size));
    ids[i] = id == kNoLabel ? kNoId : static_cast<uint32_t>(id);
  }
  const IdPacking packing = label_packing(fingerprint);
  const std::vector<uint8_t> packed = pack_ids(ids, packing);
  const uint64_t chunk = fingerprint.has_tail() && k > 1 ? kTableChunk : kTokenChunk;
  std::vector<PackedColumn> columns = {id_column(id_dataset(fingerprint), packing, info.tokens, k, chunk, packed)};
  if (fingerprint.has_logp()) columns.push_back(half_column(logp_dataset(fingerprint), info.tokens, k, chunk, labels.logp.data()));
  if (fingerprint.has_tail()) columns.push_back(half_column(kTailDataset, info.tokens, 1, kTokenChunk, labels.tail.data()));

  const std::filesystem::path path = s.folder / info.name, temporary = temporary_path(path);
  {
    Hdf5Writer file(temporary, 1);
    file.set_attribute("/", "format", "coppice.labels");
    file.set_attribute("/", "version", uint64_t{kVersion});
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
  if (labels.near_ties >= 0) entries.back()["near_ties"] = labels.near_ties;
  // In the order of names: the manifest of a finished cache does not depend on interruptions or on who labelled what.
  std::sort(entries.begin(), entries.end(), [](const Json& a, const Json& b) { return a["name"].get<std::string>() < b["name"].get<std::string>(); });
  write_file_atomically(s.manifest_path(), seal(manifest));
  s.done[shard] = true;
}

namespace {

/// The columns of one label file.
struct LabelFile {
  IdColumn ids;
  std::unique_ptr<HalfColumn> logp, tail;

  LabelFile(const std::filesystem::path& path, const LabelFingerprint& fingerprint, uint64_t tokens)
      : ids(path, id_dataset(fingerprint), label_packing(fingerprint), tokens, static_cast<uint64_t>(fingerprint.k)) {
    if (fingerprint.has_logp()) logp = std::make_unique<HalfColumn>(path, logp_dataset(fingerprint), tokens, static_cast<uint64_t>(fingerprint.k));
    if (fingerprint.has_tail()) tail = std::make_unique<HalfColumn>(path, kTailDataset, tokens);
  }

  void finish_checks() {
    ids.finish_checks();
    if (logp) logp->finish_checks();
    if (tail) tail->finish_checks();
  }

  /// Log-probabilities at most 0 (but for half precision), descending, and with the tail of mass 1.
  void check_probabilities(const std::string& path, const LabelFingerprint& fingerprint) const {
    if (!logp) return;
    const auto k = static_cast<size_t>(fingerprint.k);
    std::vector<float> mass(logp->rows(), 0.0f);
    logp->scan([&](uint64_t begin, const std::vector<float>& values) {
      for (size_t i = 0; i < values.size(); ++i) {
        const uint64_t token = begin + i / k;
        if (!(values[i] <= 0.01f)) throw UserError::bad_file(path, fmt::format("log-probability {} at token {}", values[i], token));
        if (i % k > 0 && values[i] > values[i - 1])
          throw UserError::bad_file(path, fmt::format("log-probabilities of token {} are not in descending order", token));
        mass[token] += std::exp(values[i]);
      }
    });
    if (!tail) return;
    std::vector<char> labelled(mass.size(), 0);
    ids.scan([&](uint64_t begin, const std::vector<uint32_t>& id) {
      for (size_t i = 0; i < id.size(); i += k) labelled[begin + i / k] = id[i] < fingerprint.vocab_size;
    });
    tail->scan([&](uint64_t begin, const std::vector<float>& values) {
      for (size_t i = 0; i < values.size(); ++i)
        if (const float sum = mass[begin + i] + std::exp(values[i]); labelled[begin + i] && !(std::abs(sum - 1) <= kMassTolerance))
          throw UserError::bad_file(path, fmt::format("the probabilities of token {} and their tail add up to {}, expected 1", begin + i, sum));
    });
  }
};

}  // namespace

struct LabelCache::State {
  LabelFingerprint fingerprint;
  std::vector<LabelFile> files;
  std::vector<std::vector<std::pair<uint64_t, uint64_t>>> gaps;  // of each shard, in order: tokens that may be drawn and have no label
  uint64_t bytes = 0;
  mutable std::vector<int64_t> scratch;

  int64_t none() const { return none_of(label_packing(fingerprint)); }

  /// Ids inside the vocabulary, and a label wherever one is needed; remembers the gaps that are allowed.
  void check_labels(const IdColumn& column, const std::string& path, const TokenShards& shards, size_t shard, LabelCoverage coverage) {
    const std::vector<uint64_t>& ends = shards.document_ends(shard);
    const uint64_t context = static_cast<uint64_t>(std::max<int64_t>(1, fingerprint.context));
    const uint64_t covered = fingerprint.window_rule == "aligned" ? (column.rows() - 1) / context * context : column.rows();
    const uint32_t no_label = none_of(label_packing(fingerprint));
    const auto k = static_cast<size_t>(fingerprint.k);
    size_t document = 0;
    auto& gap = gaps.emplace_back();
    column.scan([&](uint64_t begin, const std::vector<uint32_t>& ids) {
      for (size_t i = 0; i < ids.size(); ++i) {
        const bool has_label = ids[i] < fingerprint.vocab_size;
        if (has_label) continue;
        const uint64_t offset = begin + i / k;
        if (ids[i] != no_label)
          throw UserError::bad_file(path, fmt::format("label {} of token {} is outside the vocabulary of {}", ids[i], offset, fingerprint.vocab_size));
        if (i % k > 0) continue;  // fewer than k ids are no hole
        while (ends[document] <= offset) ++document;
        if (offset + 1 == ends[document]) continue;  // never used
        if (coverage == LabelCoverage::some || offset >= covered) {
          if (!gap.empty() && gap.back().second == offset) {
            ++gap.back().second;
          } else {
            gap.emplace_back(offset, offset + 1);
          }
          continue;
        }
        size_t stop = i + k;
        while (stop < ids.size() && ids[stop] == no_label) stop += k;
        throw UserError::bad_file(path, "no labels for " + document_range(shards, shard, offset, begin + stop / k));
      }
    });
  }
};

LabelCache::LabelCache(const std::filesystem::path& folder, const TokenShards& shards, const LabelFingerprint& expected, LabelCoverage coverage)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.fingerprint = expected;
  const std::filesystem::path manifest_path = folder / "manifest.json";
  const std::string where = manifest_path.string();
  const Json manifest = read_manifest(manifest_path, expected.to_json());
  if (shards.vocab_size() > expected.vocab_size)
    throw UserError::bad_file(where, fmt::format("labels of a vocabulary of {} cannot cover tokens of {}", expected.vocab_size, shards.vocab_size()));
  s.bytes = std::filesystem::file_size(manifest_path);
  for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
    const TokenShardInfo& info = shards.shards()[shard];
    const std::filesystem::path path = folder / info.name;
    Entry entry;
    if (!find_entry(manifest, info.name, where, entry)) throw UserError::bad_file(where, "no labels for " + document_range(shards, shard, 0, info.tokens));
    if (entry.tokens != info.tokens)
      throw UserError::bad_file(where, fmt::format("{}: labels for {} tokens, the shard holds {}", info.name, entry.tokens, info.tokens));
    check_listed_file(path, entry.bytes, entry.sha256);
    s.bytes += entry.bytes;
    LabelFile file(path, expected, info.tokens);
    if (file.ids.file().string_attribute("/", "token_shard_sha256") != info.sha256)
      throw UserError::bad_file(path.string(), "attribute token_shard_sha256: the labels belong to another token shard");
    s.check_labels(file.ids, path.string(), shards, shard, coverage);
    file.check_probabilities(path.string(), expected);
    file.finish_checks();
    s.files.push_back(std::move(file));
  }
}

LabelCache::LabelCache(LabelCache&&) noexcept = default;
LabelCache::~LabelCache() = default;

int64_t LabelCache::k() const { return state_->fingerprint.k; }
const LabelFingerprint& LabelCache::fingerprint() const { return state_->fingerprint; }

void LabelCache::read(size_t shard, uint64_t begin, uint64_t count, int64_t* out) const {
  const State& s = *state_;
  const auto k = static_cast<uint64_t>(s.fingerprint.k);
  if (k == 1) {
    s.files.at(shard).ids.read(begin, count, out);
  } else {
    s.scratch.resize(count * k);
    s.files.at(shard).ids.read(begin, count, s.scratch.data());
    for (uint64_t i = 0; i < count; ++i) out[i] = s.scratch[i * k];
  }
  for (uint64_t i = 0; i < count; ++i)
    if (out[i] == s.none()) out[i] = kNoLabel;
}

void LabelCache::read_top_k(size_t shard, uint64_t begin, uint64_t count, int64_t* id, float* logp, float* tail) const {
  const State& s = *state_;
  COPPICE_CHECK(s.fingerprint.has_logp(), "tier " + s.fingerprint.tier + " holds no probabilities");
  const LabelFile& file = s.files.at(shard);
  file.ids.read(begin, count, id);
  const uint64_t num_ids = count * static_cast<uint64_t>(s.fingerprint.k);
  for (uint64_t i = 0; i < num_ids; ++i)
    if (id[i] == s.none()) id[i] = kNoLabel;
  file.logp->read(begin, count, logp);
  if (file.tail) {
    file.tail->read(begin, count, tail);
  } else {
    for (uint64_t i = 0; i < count; ++i) tail[i] = std::log(std::max(0.0f, -std::expm1(logp[i])));
  }
}

std::optional<std::pair<uint64_t, uint64_t>> LabelCache::first_gap(size_t shard, uint64_t begin, uint64_t count) const {
  const auto& gaps = state_->gaps.at(shard);
  const auto gap = std::ranges::upper_bound(gaps, begin, {}, &std::pair<uint64_t, uint64_t>::second);  // the first that ends behind `begin`
  if (gap == gaps.end() || gap->first >= begin + count) return std::nullopt;
  return std::pair(std::max(begin, gap->first), std::min(begin + count, gap->second));
}

uint64_t LabelCache::bytes() const { return state_->bytes; }

namespace {

Json read_any_manifest(const std::filesystem::path& folder) { return read_sealed(folder / "manifest.json", "coppice.labels", kVersion); }

}  // namespace

LabelCacheSummary summarise_labels(const std::filesystem::path& folder) {
  const std::string where = (folder / "manifest.json").string();
  const Json manifest = read_any_manifest(folder);
  LabelCacheSummary summary{.fingerprint = LabelFingerprint::from_json(object_at(manifest, "fingerprint", where), where),
                            .domain = string_at(manifest, "domain", where)};
  for (const Json& token_shard : array_at(manifest, manifest.contains("token_shards") ? "token_shards" : "shards", where)) {
    LabelShardSummary shard{.name = string_at(token_shard, "name", where), .tokens = unsigned_at(token_shard, "tokens", where)};
    check_leaf_name(shard.name, where);
    Entry entry;
    shard.finished = find_entry(manifest, shard.name, where, entry);
    if (shard.finished) {
      const std::filesystem::path path = folder / shard.name;
      check_listed_file(path, entry.bytes, entry.sha256);
      const LabelFile file(path, summary.fingerprint, entry.tokens);
      const auto k = static_cast<size_t>(summary.fingerprint.k);
      auto& [gap_begin, gap_end] = shard.first_gap;
      file.ids.scan([&](uint64_t begin, const std::vector<uint32_t>& ids) {
        for (size_t i = 0; i < ids.size(); i += k) {
          const uint64_t token = begin + i / k;
          const bool labelled = ids[i] < summary.fingerprint.vocab_size;
          shard.labelled += labelled;
          if (!labelled && gap_begin == gap_end) gap_begin = gap_end = token;
          if (!labelled && gap_end == token) ++gap_end;
        }
      });
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

void check_label_fingerprint(const Json& found, const LabelFingerprint& expected, const std::string& path) {
  check_fingerprint(found, expected.to_json(), path);
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

at::Tensor lookup_labels(const std::vector<const LabelCache*>& caches, const Batch& batch) {
  at::Tensor label_BT = batch.token_BT.new_full(batch.token_BT.sizes(), kIgnoredLabel);
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

TopK lookup_top_k(const std::vector<const LabelCache*>& caches, const Batch& batch) {
  int64_t k = 1;
  for (const LabelCache* cache : caches)
    if (cache != nullptr) k = cache->k();
  const int64_t rows = batch.token_BT.numel(), seq_len = batch.token_BT.size(1);
  TopK top{.id_NK = batch.token_BT.new_full({rows, k}, kIgnoredLabel),
           .logp_NK = batch.token_BT.new_zeros({rows, k}, at::kFloat),
           .tail_logp_N = batch.token_BT.new_zeros({rows}, at::kFloat)};
  int64_t* const ids = top.id_NK.mutable_data_ptr<int64_t>();
  for (const Span& span : batch.spans) {
    const LabelCache* const cache = caches.at(static_cast<size_t>(span.domain));
    if (cache == nullptr) continue;
    COPPICE_CHECK(cache->k() == k, fmt::format("caches of {} and {} ids a token in one batch", k, cache->k()));
    const int64_t first = span.row * seq_len + span.column;
    cache->read_top_k(static_cast<size_t>(span.shard), span.offset, static_cast<uint64_t>(span.length), ids + first * k,
                      top.logp_NK.mutable_data_ptr<float>() + first * k, top.tail_logp_N.mutable_data_ptr<float>() + first);
    for (int64_t i = first * k; i < (first + span.length) * k; ++i)
      if (ids[i] == kNoLabel) ids[i] = kIgnoredLabel;
  }
  return top;
}

}  // namespace coppice
