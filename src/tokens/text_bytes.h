// Bits per byte divide by the bytes of the text itself, whatever the tokenizer makes of it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/tokens/tokenizer.h"

namespace coppice {

class TextBytes {
 public:
  explicit TextBytes(const Tokenizer& tokenizer);
  /// UTF-8 bytes of the text that `next` stands for, where next[i] is the token after tokens[i] (below 0: none). The
  /// first token of a document is counted without its dummy prefix.
  double of(std::span<const int64_t> tokens, std::span<const int64_t> next) const;

 private:
  std::vector<int64_t> piece_bytes_,
      first_piece_bytes_;  // by id; the second: behind EOS, at the beginning of a document
  int64_t eos_id_;
};

}  // namespace coppice
