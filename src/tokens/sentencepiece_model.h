// A tokenizer.model (protobuf) for pieces that came in another form. Private to src/tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/tokens/tokenizer.h"

namespace coppice {

struct TokenizerJson;

struct SentencePieceParts {
  std::vector<Piece> pieces;  // by id
  bool add_dummy_prefix = false;
  std::optional<int64_t> bos_id, eos_id, pad_id;
};

/// The bytes of a BPE model with byte fallback and identity normalisation; read_sentencepiece() fences them.
std::string sentencepiece_bytes(const SentencePieceParts& parts);

/// The tokenizer.model that gives the ids of a tokenizer.json of Llama 2's kind. UserError::bad_file(path, ...) names
/// what no such model can say: merges that leave out a way to a piece or change between pieces, other normalizers.
std::string sentencepiece_model(const TokenizerJson& json, const std::string& path);

}  // namespace coppice
