// Writing token shards: one shard is collected in memory, written, read back, renamed; the manifest comes last and makes the folder whole.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/data/columns.h"
#include "src/data/token_shards.h"

namespace coppice {

struct TokenShardWriter::State {
  std::filesystem::path folder;
  std::string domain;
  int64_t vocab_size, eos_id;
  std::string tokenizer_sha256;
  uint64_t shard_tokens;
  std::vector<uint32_t> ids;  // of the shard being collected
  std::vector<uint64_t> document_ends, document_ids;
  uint64_t text_bytes = 0;
  uint64_t num_tokens = 0;  // of all shards
  Json shards = Json::array();
  bool finished = false;

  void flush() {
    if (ids.empty()) return;
    const std::string name = fmt::format("shard-{:05}.h5", shards.size());
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
    shards.push_back(
        {{"name", name}, {"bytes", file.bytes}, {"sha256", file.sha256}, {"tokens", ids.size()}, {"docs", num_documents}, {"text_bytes", text_bytes}});
    ids.clear();
    document_ends.clear();
    document_ids.clear();
    text_bytes = 0;
  }
};

TokenShardWriter::TokenShardWriter(std::filesystem::path folder, std::string domain, int64_t vocab_size, int64_t eos_id, std::string tokenizer_sha256,
                                   uint64_t shard_tokens)
    : state_(new State{std::move(folder), std::move(domain), vocab_size, eos_id, std::move(tokenizer_sha256), shard_tokens, {}, {}, {}}) {
  COPPICE_CHECK(vocab_size > 0 && vocab_size <= (int64_t{1} << 31) && eos_id >= 0 && eos_id < vocab_size && shard_tokens > 0,
                fmt::format("vocab_size {}, eos_id {}, shard_tokens {}", vocab_size, eos_id, shard_tokens));
  make_folder(state_->folder);
  remove_temporaries(state_->folder);
  std::error_code ignored;  // an older manifest no longer describes the folder
  std::filesystem::remove(state_->folder / "manifest.json", ignored);
}

TokenShardWriter::~TokenShardWriter() = default;

void TokenShardWriter::add(uint64_t document_id, const std::vector<int32_t>& ids, uint64_t text_bytes) {
  State& s = *state_;
  COPPICE_CHECK(!s.finished, "add after finish");
  if (!s.ids.empty() && s.ids.size() + ids.size() + 1 > s.shard_tokens) s.flush();
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

void TokenShardWriter::finish() {
  State& s = *state_;
  s.flush();
  if (s.shards.empty()) throw UserError::bad_file(s.folder.string(), fmt::format("domain '{}' has no documents", s.domain));
  for (size_t i = s.shards.size();; ++i) {  // of an earlier, larger set
    if (!std::filesystem::remove(s.folder / fmt::format("shard-{:05}.h5", i))) break;
  }
  const Json manifest = {{"format", "coppice.tokens"}, {"version", 1},
                         {"domains", {s.domain}},      {"tokenizer", {{"sha256", s.tokenizer_sha256}, {"vocab_size", s.vocab_size}, {"eos_id", s.eos_id}}},
                         {"shards", s.shards},         {"pipeline", Json::array()}};
  write_file_atomically(s.folder / "manifest.json", seal(manifest));
  s.finished = true;
}

uint64_t TokenShardWriter::num_tokens() const { return state_->num_tokens; }

}  // namespace coppice
