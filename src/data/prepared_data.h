// A corpus ready to train on: tokenizer and token shards in one folder, tokenizer/, tokens/<domain>, heldout/<domain>,
// tuning/<domain>.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/loader.h"
#include "src/tokens/token_shards.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

struct PreparedData {
  std::unique_ptr<Tokenizer> tokenizer;
  std::map<std::string, TokenShards> train, heldout, tuning;  // by domain; absent where no document falls into it
  std::string fingerprint;    // of what was asked: corpus hashes, split, tokenizer options
  std::string tokens_sha256;  // of what came out: all token manifests

  /// Shards of the mixture's domains, in its order.
  std::vector<const TokenShards*> shards_of(const std::vector<MixtureEntry>& mixture) const;
  /// What models are measured on: "heldout" or "tuning".
  const std::map<std::string, TokenShards>& split(std::string_view name) const;
};

/// Opens and verifies it all; `fingerprint` is kept. UserError::bad_file, also for tokens of another tokenizer.
PreparedData open_prepared(const std::filesystem::path& data_folder, std::string fingerprint);

}  // namespace coppice
