// Training of a tokenizer: a SentencePiece BPE model with the AFM options.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "src/base/option_mark.h"

namespace coppice {

struct TokenizerOptions {
  std::string kind = "sentencepiece";
  int64_t vocab_size = 49152;
  double character_coverage = 0.9995;
  std::string path;  // of an existing one; empty = train one
  int64_t training_bytes = 10'000'000;

  template <class Field>
  void visit_fields(Field& field) {
    field("kind", kind, Mark::decides, "of one that is trained: sentencepiece (BPE with the AFM options)");
    field("vocab_size", vocab_size, Mark::decides, "pieces, with 4 control pieces and 256 bytes among them");
    field("character_coverage", character_coverage, Mark::decides,
          "share of characters that get pieces of their own, 0.98 to 1; the rest become bytes");
    field("path", path, Mark::place,
          "an existing tokenizer to use: tokenizer.model, tokenizer.json or a Hugging Face folder; empty = train one "
          "on the corpus");
    field("training_bytes", training_bytes, Mark::decides,
          "bytes of text that the trainer sees, an equal part from each domain");
  }
};

// SentencePiece's trainer packs the place of a pair's left character in its line, 0 to 32,767, into the upper half of a
// signed 32-bit number. With longer lines it reads beyond its memory, and from 65,537 characters on it ends the
// process.
inline constexpr size_t kMaxLineCharacters = 32769;
/// Where a training text had to be cut: at NUL and U+2585, for which the trainer drops the whole line, and inside words
/// that fill a line of kMaxLineCharacters.
struct TrainingCuts {
  int64_t symbols = 0, words = 0;
};
/// The lines that the trainer sees of a text, none empty: cut at newlines as well, so that no piece is learned across
/// them.
TrainingCuts for_each_training_line(std::string_view text, const std::function<void(std::string_view line)>& take);

/// Trains on the paragraphs that `next` yields (it returns false at the end) and returns the model's bytes.
/// Same text, same bytes: num_threads is fixed. UserError::recipe when the vocabulary is too large or too small for the
/// text (names the size that is not).
std::string train_tokenizer(const TokenizerOptions& options, const std::function<bool(std::string&)>& next_paragraph);

}  // namespace coppice
