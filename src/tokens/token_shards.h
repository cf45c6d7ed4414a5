// Token shards: documents of one domain as HDF5 files of ids with EOS after each document, and a manifest with their
// hashes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "src/base/hdf5.h"
#include "src/base/json.h"
#include "src/tokens/source_rights.h"

namespace coppice {

inline constexpr uint64_t kTokenChunk = 65536;  // of the dataset /tokens

struct TokenShardInfo {
  std::string name;  // shard-00000.h5
  std::string sha256;
  uint64_t bytes = 0, tokens = 0, documents = 0;
  uint64_t text_bytes = 0;  // UTF-8 bytes of the documents' text: bits per byte
};

/// One domain's shards, opened. Everything is verified on open: manifest seal, file sizes and hashes, ids < vocab_size,
/// doc_end ascending. UserError::bad_file naming shard and document otherwise.
class TokenShards {
 public:
  explicit TokenShards(const std::filesystem::path& folder);
  TokenShards(TokenShards&&) noexcept;
  ~TokenShards();

  const std::string& domain() const;
  /// Of the corpus that the documents come from; empty without one.
  const std::vector<SourceRights>& sources() const;
  const std::vector<TokenShardInfo>& shards() const;
  const std::string& manifest_sha256() const;
  const std::string& tokenizer_sha256() const;
  int64_t vocab_size() const;
  int64_t eos_id() const;
  uint64_t num_tokens() const;
  uint64_t text_bytes() const;
  /// Tokens [begin, begin + count) of a shard.
  void read(size_t shard, uint64_t begin, uint64_t count, int64_t* out) const;
  /// Exclusive document ends of a shard, EOS included.
  const std::vector<uint64_t>& document_ends(size_t shard) const;
  /// Hash of each document's id (document_hash).
  const std::vector<uint64_t>& document_ids(size_t shard) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coppice
