// Control pieces and the unknown one stand for no text, byte pieces for one byte, all others for their own, with a
// space for U+2581 (three bytes).
#include "src/tokens/text_bytes.h"

#include "src/tokens/sentencepiece_walk.h"

namespace coppice {

TextBytes::TextBytes(const Tokenizer& tokenizer) : eos_id_(tokenizer.eos_id()) {
  for (const Piece& piece : tokenizer.pieces()) {
    int64_t bytes = 0;
    if (piece.type == PieceType::byte) {
      bytes = 1;
    } else if (piece.type != PieceType::control && piece.type != PieceType::unknown) {
      bytes = std::ssize(piece.text);
      for (size_t at = 0; (at = piece.text.find(kSpaceSymbol, at)) != std::string::npos; at += kSpaceSymbol.size())
        bytes -= 2;
    }
    piece_bytes_.push_back(bytes);
    first_piece_bytes_.push_back(
        bytes - (tokenizer.has_dummy_prefix() && bytes > 0 && piece.text.starts_with(kSpaceSymbol) ? 1 : 0));
  }
}

double TextBytes::of(std::span<const int64_t> tokens, std::span<const int64_t> next) const {
  int64_t bytes = 0;
  for (size_t i = 0; i < next.size(); ++i)
    if (next[i] >= 0) bytes += (tokens[i] == eos_id_ ? first_piece_bytes_ : piece_bytes_)[static_cast<size_t>(next[i])];
  return static_cast<double>(bytes);
}

}  // namespace coppice
