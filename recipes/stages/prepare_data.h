// From the recipe's corpus to a tokenizer and token shards in the run folder: data/tokenizer, data/tokens/<domain>,
// data/heldout/<domain>.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "recipes/folder/run_folder.h"
#include "recipes/language/recipe.h"
#include "src/tokens/token_shards.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

struct PreparedData {
  std::unique_ptr<Tokenizer> tokenizer;
  std::map<std::string, TokenShards> train,
      heldout;                // by domain; a domain without held-out documents is absent from heldout
  std::string fingerprint;    // of what was asked: corpus hashes, split, tokenizer options
  std::string tokens_sha256;  // of what came out: all token manifests

  /// Shards of the mixture's domains, in its order.
  std::vector<const TokenShards*> shards_of(const std::vector<MixtureEntry>& mixture) const;
};

/// Identity of the data a recipe asks for. Reads and hashes every corpus file; UserError::bad_file for a missing or
/// empty one.
Json data_identity(const Recipe& recipe);

/// SHA-256 of a file, or of the sorted (relative path, hash) list of the files that are read below a folder.
/// UserError::bad_file when there is nothing. Throws Stopped on a stop request.
std::string corpus_sha256(const std::filesystem::path& path);
/// Builds what is missing and opens everything verified. Shards that are whole are kept, so a kill costs one shard.
/// Throws Stopped on a stop request.
PreparedData prepare_data(const Recipe& recipe, RunFolder& run, const Json& identity);
/// Opens what an earlier run prepared.
PreparedData open_data(const std::filesystem::path& run_root);

}  // namespace coppice
