// Token shards out: cut at document ends, each written, read back and renamed; a kill costs the shard at hand.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "src/tokens/source_rights.h"

namespace coppice {

/// Appends documents of one domain and cuts shards of at most `shard_tokens` tokens at document ends; finish() commits
/// the manifest. After a kill the same documents in the same order go on behind the last whole shard: partial.json
/// remembers those.
class TokenShardWriter {
 public:
  TokenShardWriter(std::filesystem::path folder, std::string domain, int64_t vocab_size, int64_t eos_id,
                   std::string tokenizer_sha256, uint64_t shard_tokens);
  ~TokenShardWriter();
  /// True while the next document lies in a shard that is there already: it is passed over, and neither encoded nor
  /// added.
  bool skip();
  void add(uint64_t document_id, const std::vector<int32_t>& ids, uint64_t text_bytes);  // EOS is added here
  /// `sources`: whose documents these are, for the manifest.
  void finish(const std::vector<SourceRights>& sources = {});
  uint64_t num_tokens() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coppice
