// Writing token shards: one shard is collected in memory, written, read back, renamed; the manifest comes last and
// makes the folder whole. Until then partial.json lists the shards that are there, so that a stop or a kill costs one
// shard.
#include "src/tokens/token_shard_writer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/base/log.h"
#include "src/tokens/columns.h"
#include "src/tokens/token_shards.h"

namespace coppice {

namespace {

constexpr const char* kPartial = "partial.json";

std::string shard_name(size_t number) { return fmt::format("shard-{:05}.h5", number); }

}  // namespace

struct TokenShardWriter::State {
  std::filesystem::path folder;
  std::string domain;
  int64_t vocab_size, eos_id;
  std::string tokenizer_sha256;
  uint64_t shard_tokens;
  std::vector<uint32_t> ids;  // of the shard being collected
  std::vector<uint64_t> document_ends, document_ids;
  uint64_t text_bytes = 0;
  uint64_t num_tokens = 0;    // of all shards
  uint64_t left_to_skip = 0;  // documents of the shards that were found
  Json shards = Json::array();
  bool finished = false;

  void flush() {
    if (ids.empty()) return;
    const std::string name = shard_name(shards.size());
    const std::filesystem::path path = folder / name, temporary = temporary_path(path);
    const IdPacking packing = token_packing(vocab_size);
    const std::vector<uint8_t> packed = pack_ids(ids, packing);
    const PackedColumn column = id_column("/tokens", packing, ids.size(), 1, kTokenChunk, packed);
    const uint64_t num_documents = document_ends.size();
    {
      Hdf5Writer file(temporary, 1);
      file.set_attribute("/", "format", "coppice.tokens");
      file.set_attribute("/", "version", uint64_t{1});
      file.set_attribute("/", "vocab_size", static_cast<uint64_t>(vocab_size));
      file.set_attribute("/", "eos_id", static_cast<uint64_t>(eos_id));
      file.set_attribute("/", "tokenizer_sha256", tokenizer_sha256);
      file.set_attribute("/", "n_tokens", ids.size());
      file.set_attribute("/", "n_docs", num_documents);
      file.set_attribute("/", "created_by", "coppice");
      write_column(file, column);
      const uint64_t chunk = even_chunk_rows(num_documents, kTokenChunk);
      file.write_chunked("/doc_end", Hdf5Type::u64, {num_documents}, chunk, document_ends.data());
      file.write_chunked("/doc_id", Hdf5Type::u64, {num_documents}, chunk, document_ids.data());
      const std::vector<uint16_t> domains(num_documents, 0);
      file.write_chunked("/domain", Hdf5Type::u16, {num_documents}, chunk, domains.data());
      file.close();
    }
    const CommittedFile file = verify_and_commit(temporary, path, {column});
    shards.push_back({{"name", name},
                      {"bytes", file.bytes},
                      {"sha256", file.sha256},
                      {"tokens", ids.size()},
                      {"docs", num_documents},
                      {"text_bytes", text_bytes}});
    ids.clear();
    document_ends.clear();
    document_ids.clear();
    text_bytes = 0;
  }

  Json tokenizer() const { return {{"sha256", tokenizer_sha256}, {"vocab_size", vocab_size}, {"eos_id", eos_id}}; }

  void write_partial() const {
    const Json partial = {{"format", "coppice.tokens.partial"},
                          {"version", 1},
                          {"tokenizer", tokenizer()},
                          {"shard_tokens", shard_tokens},
                          {"shards", shards}};
    write_file_atomically(folder / kPartial, seal(partial));
  }

  /// Takes over the shards that an earlier process left, or none.
  void resume() {
    const std::filesystem::path path = folder / kPartial;
    if (!std::filesystem::exists(path)) return;
    try {
      const std::string where = path.string();
      const Json partial = read_sealed(path, "coppice.tokens.partial", 1);
      if (object_at(partial, "tokenizer", where) != tokenizer() ||
          unsigned_at(partial, "shard_tokens", where) != shard_tokens)
        return;
      uint64_t documents = 0, tokens = 0;
      for (size_t i = 0; i < array_at(partial, "shards", where).size(); ++i) {
        const Json& shard = partial["shards"][i];
        if (string_at(shard, "name", where) != shard_name(i)) throw UserError::bad_file(where, "shards out of order");
        check_listed_file(folder / shard_name(i), unsigned_at(shard, "bytes", where),
                          string_at(shard, "sha256", where));
        documents += unsigned_at(shard, "docs", where);
        tokens += unsigned_at(shard, "tokens", where);
      }
      shards = partial["shards"];
      left_to_skip = documents;
      num_tokens = tokens;
    } catch (const UserError& error) {
      log_warning(fmt::format("the shards of '{}' are written again: {}", domain, error.what()));
    }
  }
};

TokenShardWriter::TokenShardWriter(std::filesystem::path folder, std::string domain, int64_t vocab_size, int64_t eos_id,
                                   std::string tokenizer_sha256, uint64_t shard_tokens)
    : state_(new State{std::move(folder),
                       std::move(domain),
                       vocab_size,
                       eos_id,
                       std::move(tokenizer_sha256),
                       shard_tokens,
                       {},
                       {},
                       {}}) {
  COPPICE_CHECK(
      vocab_size > 0 && vocab_size <= (int64_t{1} << 31) && eos_id >= 0 && eos_id < vocab_size && shard_tokens > 0,
      fmt::format("vocab_size {}, eos_id {}, shard_tokens {}", vocab_size, eos_id, shard_tokens));
  make_folder(state_->folder);
  remove_temporaries(state_->folder);
  std::error_code ignored;  // an older manifest no longer describes the folder
  if (std::filesystem::remove(state_->folder / "manifest.json", ignored))
    std::filesystem::remove(state_->folder / kPartial, ignored);
  state_->resume();
}

TokenShardWriter::~TokenShardWriter() = default;

bool TokenShardWriter::skip() {
  if (state_->left_to_skip == 0) return false;
  --state_->left_to_skip;
  return true;
}

void TokenShardWriter::add(uint64_t document_id, const std::vector<int32_t>& ids, uint64_t text_bytes) {
  State& s = *state_;
  COPPICE_CHECK(!s.finished && s.left_to_skip == 0, "add after finish, or before skip() is over");
  if (!s.ids.empty() && s.ids.size() + ids.size() + 1 > s.shard_tokens) {
    s.flush();
    s.write_partial();
    (void)COPPICE_FAILPOINT("tokens.after_shard");
  }
  for (const int32_t id : ids) {
    COPPICE_CHECK(id >= 0 && id < s.vocab_size, fmt::format("id {} of a vocabulary of {}", id, s.vocab_size));
    s.ids.push_back(static_cast<uint32_t>(id));
  }
  s.ids.push_back(static_cast<uint32_t>(s.eos_id));
  s.document_ends.push_back(s.ids.size());
  s.document_ids.push_back(document_id);
  s.text_bytes += text_bytes;
  s.num_tokens += ids.size() + 1;
}

void TokenShardWriter::finish(const std::vector<SourceRights>& sources) {
  State& s = *state_;
  s.flush();
  if (s.shards.empty())
    throw UserError::bad_file(s.folder.string(), fmt::format("domain '{}' has no documents", s.domain));
  for (size_t i = s.shards.size();; ++i) {  // of an earlier, larger set
    if (!std::filesystem::remove(s.folder / shard_name(i))) break;
  }
  std::filesystem::remove(s.folder / kPartial);
  Json manifest = {{"format", "coppice.tokens"}, {"version", 1},       {"domains", {s.domain}},
                   {"tokenizer", s.tokenizer()}, {"shards", s.shards}, {"pipeline", Json::array()}};
  if (!sources.empty()) manifest["sources"] = rights_json(sources);
  write_file_atomically(s.folder / "manifest.json", seal(manifest));
  s.finished = true;
}

uint64_t TokenShardWriter::num_tokens() const { return state_->num_tokens; }

}  // namespace coppice
