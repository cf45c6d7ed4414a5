// Label files: one per token shard, of the same name, holding one dataset /top1. A file without an entry in the manifest is labelled again.
#include "src/data/label_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/data/id_column.h"

namespace coppice {

namespace {

IdPacking label_packing(int64_t vocab_size) { return vocab_size <= 65535 ? IdPacking::two_bytes : IdPacking::three_bytes; }
uint32_t none_of(IdPacking packing) { return packing == IdPacking::two_bytes ? 0xFFFF : 0xFFFFFF; }

struct Entry {
  uint64_t bytes = 0, tokens = 0;
  std::string sha256;
};

std::string text_of(const Json& value) { return printable(value.is_string() ? value.get<std::string>() : value.dump()); }

/// Every field of the expected fingerprint, by name, and no other.
void check_fingerprint(const Json& found, const Json& expected, const std::string& path) {
  for (const auto& [name, value] : expected.items()) {
    if (!found.contains(name)) throw UserError::bad_file(path, fmt::format("the labels' fingerprint has no field {}", name));
    if (found[name] != value)
      throw UserError::bad_file(path, fmt::format("the labels were made with another {}: found {}, expected {}", name, text_of(found[name]), text_of(value)));
  }
  for (const auto& [name, value] : found.items())
    if (!expected.contains(name)) throw UserError::bad_file(path, fmt::format("the labels' fingerprint has an unknown field {}", printable(name)));
}

Json read_manifest(const std::filesystem::path& path, const Json& fingerprint) {
  Json manifest = read_sealed(path, "coppice.labels", 1);
  check_fingerprint(object_at(manifest, "fingerprint", path.string()), fingerprint, path.string());
  array_at(manifest, "shards", path.string());
  return manifest;
}

/// The entry of a shard's label file, if there is one.
bool find_entry(const Json& manifest, const std::string& name, const std::string& where, Entry& entry) {
  for (const Json& item : manifest["shards"]) {
    if (string_at(item, "name", where) != name) continue;
    entry = {unsigned_at(item, "bytes", where), unsigned_at(item, "tokens", where), string_at(item, "sha256", where)};
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
          {"window_rule", window_rule},
          {"context", context},
          {"overlap", overlap},
          {"compute_dtype", compute_dtype}};
}

struct LabelCacheWriter::State {
  std::filesystem::path folder;
  const TokenShards* shards;
  Json fingerprint;
  int64_t vocab_size;
  Json manifest;
  std::vector<bool> done;
};

LabelCacheWriter::LabelCacheWriter(std::filesystem::path folder, const TokenShards& shards, LabelFingerprint fingerprint)
    : state_(new State{std::move(folder), &shards, fingerprint.to_json(), fingerprint.vocab_size, {}, std::vector<bool>(shards.shards().size(), false)}) {
  State& s = *state_;
  COPPICE_CHECK(s.vocab_size > 0 && s.vocab_size < (int64_t{1} << 24), fmt::format("vocab_size {}", s.vocab_size));
  make_folder(s.folder);
  remove_temporaries(s.folder);
  const std::filesystem::path path = s.folder / "manifest.json";
  if (!std::filesystem::exists(path)) {
    s.manifest = {{"format", "coppice.labels"}, {"version", 1}, {"domain", shards.domain()}, {"fingerprint", s.fingerprint}, {"shards", Json::array()}};
    return;
  }
  s.manifest = read_manifest(path, s.fingerprint);
  s.manifest.erase("sha256");  // seal() writes it anew
  for (size_t shard = 0; shard < s.done.size(); ++shard) {
    const TokenShardInfo& info = shards.shards()[shard];
    Entry entry;
    if (!find_entry(s.manifest, info.name, path.string(), entry) || entry.tokens != info.tokens) continue;
    try {
      check_listed_file(s.folder / info.name, entry.bytes, entry.sha256);
      s.done[shard] = true;
    } catch (const UserError&) {
      // damaged or gone: labelled again
    }
  }
}

LabelCacheWriter::~LabelCacheWriter() = default;

bool LabelCacheWriter::has(size_t shard) const { return state_->done.at(shard); }

void LabelCacheWriter::write(size_t shard, const std::vector<int32_t>& label) {
  State& s = *state_;
  const TokenShardInfo& info = s.shards->shards().at(shard);
  COPPICE_CHECK(label.size() == info.tokens, fmt::format("{} labels for {} tokens of {}", label.size(), info.tokens, info.name));
  std::vector<uint32_t> ids(label.size());
  for (size_t i = 0; i < label.size(); ++i) {
    COPPICE_CHECK(label[i] == kNoLabel || (label[i] >= 0 && label[i] < s.vocab_size), fmt::format("label {} of a vocabulary of {}", label[i], s.vocab_size));
    ids[i] = label[i] == kNoLabel ? kNoId : static_cast<uint32_t>(label[i]);
  }
  const IdPacking packing = label_packing(s.vocab_size);
  const std::vector<uint8_t> packed = pack_ids(ids, packing);
  const std::filesystem::path path = s.folder / info.name, temporary = temporary_path(path);
  {
    Hdf5Writer file(temporary, 1);
    file.set_attribute("/", "format", "coppice.labels");
    file.set_attribute("/", "version", uint64_t{1});
    file.set_attribute("/", "vocab_size", static_cast<uint64_t>(s.vocab_size));
    file.set_attribute("/", "n_tokens", info.tokens);
    file.set_attribute("/", "token_shard_sha256", info.sha256);
    write_id_column(file, "/top1", packing, info.tokens, kTokenChunk, packed);
    file.close();
  }
  const CommittedFile file = verify_and_commit(temporary, path, "/top1", packing, info.tokens, packed);
  Json& entries = s.manifest["shards"];
  for (size_t i = 0; i < entries.size(); ++i)
    if (entries[i]["name"] == info.name) entries.erase(i--);
  entries.push_back({{"name", info.name}, {"bytes", file.bytes}, {"sha256", file.sha256}, {"tokens", info.tokens}});
  // In the order of names: the manifest of a finished cache does not depend on interruptions.
  std::sort(entries.begin(), entries.end(), [](const Json& a, const Json& b) { return a["name"].get<std::string>() < b["name"].get<std::string>(); });
  write_file_atomically(s.folder / "manifest.json", seal(s.manifest));
  s.done[shard] = true;
}

struct LabelCache::State {
  IdPacking packing;
  std::vector<IdColumn> columns;
  uint64_t bytes = 0;

  /// Ids inside the vocabulary, and a label wherever one is needed.
  void check_labels(const IdColumn& column, const std::string& path, const TokenShards& shards, size_t shard, const LabelFingerprint& fingerprint,
                    LabelCoverage coverage) const {
    const std::vector<uint64_t>& ends = shards.document_ends(shard);
    const uint64_t context = static_cast<uint64_t>(std::max<int64_t>(1, fingerprint.context));
    const uint64_t covered = fingerprint.window_rule == "aligned" ? (column.rows() - 1) / context * context : column.rows();
    const uint32_t none = none_of(packing);
    size_t document = 0;
    column.scan([&](uint64_t begin, const std::vector<uint32_t>& ids) {
      for (size_t i = 0; i < ids.size(); ++i) {
        const bool has_label = ids[i] < fingerprint.vocab_size;
        if (has_label) continue;
        const uint64_t offset = begin + i;
        if (ids[i] != none)
          throw UserError::bad_file(path, fmt::format("label {} of token {} is outside the vocabulary of {}", ids[i], offset, fingerprint.vocab_size));
        if (coverage == LabelCoverage::some) continue;
        while (ends[document] <= offset) ++document;
        if (offset + 1 == ends[document] || offset >= covered) continue;  // never used, or no window
        size_t stop = i + 1;
        while (stop < ids.size() && ids[stop] == none) ++stop;
        throw UserError::bad_file(path, "no labels for " + document_range(shards, shard, offset, begin + stop));
      }
    });
  }
};

LabelCache::LabelCache(const std::filesystem::path& folder, const TokenShards& shards, const LabelFingerprint& expected, LabelCoverage coverage)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.packing = label_packing(expected.vocab_size);
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
    IdColumn column(path, "/top1", s.packing, info.tokens);
    if (column.file().string_attribute("/", "token_shard_sha256") != info.sha256)
      throw UserError::bad_file(path.string(), "attribute token_shard_sha256: the labels belong to another token shard");
    s.check_labels(column, path.string(), shards, shard, expected, coverage);
    column.finish_checks();
    s.columns.push_back(std::move(column));
  }
}

LabelCache::LabelCache(LabelCache&&) noexcept = default;
LabelCache::~LabelCache() = default;

void LabelCache::read(size_t shard, uint64_t begin, uint64_t count, int64_t* out) const {
  state_->columns.at(shard).read(begin, count, out);
  const int64_t none = none_of(state_->packing);
  for (uint64_t i = 0; i < count; ++i)
    if (out[i] == none) out[i] = kNoLabel;
}

uint64_t LabelCache::bytes() const { return state_->bytes; }

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

}  // namespace coppice
