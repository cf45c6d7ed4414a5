// A walk over the bytes of a SentencePiece model (protobuf) before the library sees them: 0.1.97 can crash on what this
// refuses (a piece of 400 kB, a crafted charsmap). Private to src/tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/tokens/tokenizer.h"

namespace coppice {

inline constexpr uint64_t kMaxModelBytes = uint64_t{64} << 20;

inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581, a space in a piece
/// Bytes of the UTF-8 character that begins with this byte.
constexpr size_t character_bytes(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

struct SentencePieceModel {
  std::vector<Piece> pieces;
  bool add_dummy_prefix = false;
  std::string library_bytes;  // the model with its dummy prefix off and without its own samples (self_test_data), which
                              // expect one
};

/// What a BPE model with byte fallback and identity normalisation holds. UserError::bad_file(path, ...) for anything
/// else: damaged protobuf, more than 2^20 pieces, a piece above 1 kB, empty, repeated, with NUL or invalid UTF-8,
/// unknown types, a precompiled charsmap, byte pieces that are not exactly <0x00> .. <0xFF>, another model type,
/// settings under which text does not round-trip.
SentencePieceModel walk_sentencepiece_model(std::string_view bytes, const std::string& path);

}  // namespace coppice
