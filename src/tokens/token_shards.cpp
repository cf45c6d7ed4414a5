// Opening token shards. Nothing is trusted: the manifest is sealed, size and hash of every file are compared before the
// HDF5 library sees it, then one pass over the ids and the document table.
#include "src/tokens/token_shards.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/checked.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/tokens/columns.h"

namespace coppice {

namespace {

constexpr uint64_t kMaxShards = 100'000;

struct OpenShard {
  IdColumn tokens;
  std::vector<uint64_t> document_ends, document_ids;
};

void check_attribute(const Hdf5Reader& file, const char* name, uint64_t expected) {
  const uint64_t found = file.unsigned_attribute("/", name);
  if (found != expected)
    throw UserError::bad_file(file.path().string(),
                              fmt::format("attribute {}: expected {} (manifest), found {}", name, expected, found));
}

std::vector<uint64_t> read_table(const Hdf5Reader& file, const std::string& dataset, uint64_t rows) {
  const std::string path = file.path().string();
  if (!file.has(dataset)) throw UserError::bad_file(path, "dataset " + dataset + " is missing");
  const Hdf5Shape shape = file.shape(dataset);
  if (shape.type != Hdf5Type::u64 || shape.dims != std::vector<uint64_t>{rows})
    throw UserError::bad_file(
        path, fmt::format("{}: expected {} unsigned 64-bit numbers, found another type or shape", dataset, rows));
  std::vector<uint64_t> values(rows);
  file.read_all(dataset, Hdf5Type::u64, values.data(), checked_multiply(rows, 8, path));
  return values;
}

std::string document_name(const OpenShard& shard, uint64_t offset) {
  const auto end = std::upper_bound(shard.document_ends.begin(), shard.document_ends.end(), offset);
  const size_t document =
      std::min(static_cast<size_t>(end - shard.document_ends.begin()), shard.document_ends.size() - 1);
  return fmt::format("document {} (id hash {:016x})", document, shard.document_ids[document]);
}

}  // namespace

IdPacking token_packing(int64_t vocab_size) {
  return vocab_size <= 65535 ? IdPacking::two_bytes : IdPacking::four_bytes;
}

struct TokenShards::State {
  std::filesystem::path folder;
  std::string domain, manifest_sha256, tokenizer_sha256;
  int64_t vocab_size = 0, eos_id = 0;
  uint64_t num_tokens = 0, text_bytes = 0;
  std::vector<SourceRights> sources;
  std::vector<TokenShardInfo> infos;
  std::vector<OpenShard> shards;

  void read_manifest() {
    const std::filesystem::path path = folder / "manifest.json";
    const std::string where = path.string();
    const Json manifest = read_sealed(path, "coppice.tokens", 1);
    manifest_sha256 = sha256_file(path);
    const Json& domains = array_at(manifest, "domains", where);
    if (domains.size() != 1 || !domains[0].is_string()) throw UserError::bad_file(where, "expected one domain");
    domain = domains[0].get<std::string>();
    if (manifest.contains("sources")) sources = read_rights(array_at(manifest, "sources", where), where);
    const Json& tokenizer = object_at(manifest, "tokenizer", where);
    tokenizer_sha256 = string_at(tokenizer, "sha256", where);
    const uint64_t vocab = unsigned_at(tokenizer, "vocab_size", where), eos = unsigned_at(tokenizer, "eos_id", where);
    if (vocab == 0 || vocab > (uint64_t{1} << 31) || eos >= vocab)
      throw UserError::bad_file(where, fmt::format("vocab_size {} with eos_id {}", vocab, eos));
    vocab_size = static_cast<int64_t>(vocab);
    eos_id = static_cast<int64_t>(eos);
    const Json& entries = array_at(manifest, "shards", where);
    if (entries.empty() || entries.size() > kMaxShards)
      throw UserError::bad_file(where, fmt::format("{} shards", entries.size()));
    for (const Json& entry : entries) {
      TokenShardInfo info;
      info.name = string_at(entry, "name", where);
      check_leaf_name(info.name, where);
      info.sha256 = string_at(entry, "sha256", where);
      info.bytes = unsigned_at(entry, "bytes", where);
      info.tokens = unsigned_at(entry, "tokens", where);
      info.documents = unsigned_at(entry, "docs", where);
      info.text_bytes = unsigned_at(entry, "text_bytes", where);
      if (info.tokens == 0 || info.documents == 0 || info.documents > info.tokens)
        throw UserError::bad_file(where,
                                  fmt::format("{}: {} tokens in {} documents", info.name, info.tokens, info.documents));
      num_tokens = checked_add(num_tokens, info.tokens, where);
      text_bytes = checked_add(text_bytes, info.text_bytes, where);
      infos.push_back(std::move(info));
    }
  }

  void open_shard(const TokenShardInfo& info) {
    const std::filesystem::path path = folder / info.name;
    const std::string where = path.string();
    check_listed_file(path, info.bytes, info.sha256);
    const IdPacking packing = token_packing(vocab_size);
    if (checked_multiply(info.tokens, static_cast<uint64_t>(packing), where) > info.bytes)
      throw UserError::bad_file(where, fmt::format("{} tokens cannot lie in {} bytes", info.tokens, info.bytes));
    OpenShard shard{IdColumn(path, "/tokens", packing, info.tokens), {}, {}};
    const Hdf5Reader& file = shard.tokens.file();
    if (file.string_attribute("/", "format") != "coppice.tokens")
      throw UserError::bad_file(where, "attribute format is not coppice.tokens");
    check_attribute(file, "version", 1);
    check_attribute(file, "vocab_size", static_cast<uint64_t>(vocab_size));
    check_attribute(file, "eos_id", static_cast<uint64_t>(eos_id));
    check_attribute(file, "n_tokens", info.tokens);
    check_attribute(file, "n_docs", info.documents);
    if (file.string_attribute("/", "tokenizer_sha256") != tokenizer_sha256)
      throw UserError::bad_file(where, "attribute tokenizer_sha256 differs from the manifest's");
    shard.document_ends = read_table(file, "/doc_end", info.documents);
    shard.document_ids = read_table(file, "/doc_id", info.documents);
    uint64_t previous = 0;
    for (size_t i = 0; i < shard.document_ends.size(); ++i) {
      const uint64_t end = shard.document_ends[i];
      if (end <= previous || end > info.tokens)
        throw UserError::bad_file(
            where, fmt::format("doc_end out of order: document {} ends at {} after {} (of {} tokens)", i, end, previous,
                               info.tokens));
      previous = end;
    }
    if (previous != info.tokens)
      throw UserError::bad_file(
          where, fmt::format("doc_end: the last document ends at {}, expected {}", previous, info.tokens));
    check_ids(shard, where);
    shard.tokens.finish_checks();
    shards.push_back(std::move(shard));
  }

  void check_ids(OpenShard& shard, const std::string& where) const {
    size_t document = 0;
    shard.tokens.scan([&](uint64_t begin, const std::vector<uint32_t>& ids) {
      const uint32_t largest = *std::max_element(
          ids.begin(), ids.end());  // vectorised; the exact place is looked for only when it is needed
      if (largest >= static_cast<uint64_t>(vocab_size)) {
        const size_t at = static_cast<size_t>(std::find(ids.begin(), ids.end(), largest) - ids.begin());
        throw UserError::bad_file(where, fmt::format("token {} has id {}, the vocabulary holds {}: {}", begin + at,
                                                     largest, vocab_size, document_name(shard, begin + at)));
      }
      for (; document < shard.document_ends.size() && shard.document_ends[document] <= begin + ids.size(); ++document) {
        const uint64_t last = shard.document_ends[document] - 1;
        if (ids[last - begin] != static_cast<uint64_t>(eos_id))
          throw UserError::bad_file(where, fmt::format("{} ends with id {} at token {}, expected the end id {}",
                                                       document_name(shard, last), ids[last - begin], last, eos_id));
      }
    });
  }
};

TokenShards::TokenShards(const std::filesystem::path& folder) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.folder = folder;
  s.read_manifest();
  for (const TokenShardInfo& info : s.infos) s.open_shard(info);
}

TokenShards::TokenShards(TokenShards&&) noexcept = default;
TokenShards::~TokenShards() = default;

const std::string& TokenShards::domain() const { return state_->domain; }
const std::vector<SourceRights>& TokenShards::sources() const { return state_->sources; }
const std::vector<TokenShardInfo>& TokenShards::shards() const { return state_->infos; }
const std::string& TokenShards::manifest_sha256() const { return state_->manifest_sha256; }
const std::string& TokenShards::tokenizer_sha256() const { return state_->tokenizer_sha256; }
int64_t TokenShards::vocab_size() const { return state_->vocab_size; }
int64_t TokenShards::eos_id() const { return state_->eos_id; }
uint64_t TokenShards::num_tokens() const { return state_->num_tokens; }
uint64_t TokenShards::text_bytes() const { return state_->text_bytes; }

void TokenShards::read(size_t shard, uint64_t begin, uint64_t count, int64_t* out) const {
  state_->shards.at(shard).tokens.read(begin, count, out);
}
const std::vector<uint64_t>& TokenShards::document_ends(size_t shard) const {
  return state_->shards.at(shard).document_ends;
}
const std::vector<uint64_t>& TokenShards::document_ids(size_t shard) const {
  return state_->shards.at(shard).document_ids;
}

}  // namespace coppice
