// What stands behind a Tokenizer: the facts that all kinds have, and how each encodes and decodes. Private to
// src/tokens.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/tokens/tokenizer.h"

namespace coppice {

struct TokenizerState {
  std::vector<Piece> pieces;
  std::string file_name, file_bytes, fingerprint;
  std::optional<int64_t> unk_id, bos_id, pad_id;
  int64_t eos_id = 0;
  bool is_byte_level = false, has_dummy_prefix = false, adds_bos = false;

  virtual ~TokenizerState() = default;
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  virtual std::vector<int32_t> encode_with_specials(std::string_view text) const = 0;
  /// With the dummy prefix, where there is one. Ids are below the number of pieces.
  virtual std::string decode(const std::vector<int32_t>& ids) const = 0;
  /// By id, the bytes of text that a piece stands for.
  virtual std::vector<int64_t> piece_bytes() const = 0;
  /// The piece begins with a space that may be the dummy prefix.
  virtual bool begins_with_space(const Piece& piece) const = 0;
};

/// A SentencePiece model out of its bytes, fenced (sentencepiece_walk.h). `path` is for messages.
std::unique_ptr<TokenizerState> read_sentencepiece(std::string bytes, const std::string& path);

}  // namespace coppice
