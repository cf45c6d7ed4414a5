// A walk over the bytes of a SentencePiece model (protobuf) before the library sees them: 0.1.97 can crash on what this refuses
// (a piece of 400 kB, a crafted charsmap). Private to src/data.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/data/tokenizer.h"

namespace coppice {

inline constexpr uint64_t kMaxModelBytes = uint64_t{64} << 20;

/// The pieces of a BPE model with byte fallback and identity normalisation. UserError::bad_file(path, ...) for anything else: damaged protobuf,
/// more than 2^20 pieces, a piece above 1 kB, empty, repeated, with NUL or invalid UTF-8, unknown types, a precompiled charsmap, byte pieces
/// that are not exactly <0x00> .. <0xFF>, another model type, settings under which text does not round-trip.
std::vector<Piece> walk_sentencepiece_model(std::string_view bytes, const std::string& path);

}  // namespace coppice
