#include "src/tokens/text_bytes.h"

namespace coppice {

TextBytes::TextBytes(const Tokenizer& tokenizer)
    : piece_bytes_(tokenizer.piece_bytes(/*first=*/false)),
      first_piece_bytes_(tokenizer.piece_bytes(/*first=*/true)),
      eos_id_(tokenizer.eos_id()) {}

double TextBytes::of(std::span<const int64_t> tokens, std::span<const int64_t> next) const {
  int64_t bytes = 0;
  for (size_t i = 0; i < next.size(); ++i)
    if (next[i] >= 0) bytes += (tokens[i] == eos_id_ ? first_piece_bytes_ : piece_bytes_)[static_cast<size_t>(next[i])];
  return static_cast<double>(bytes);
}

}  // namespace coppice
