// C4's rules line by line (JMLR 21-140, with datatrove's formulas): what becomes of a line, and of the document.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "src/corpus/quality/quality_text.h"

namespace coppice {

struct C4Options {
  bool terminal = true;         // a line without a mark at its end goes
  int64_t longest_word = 1000;  // code points; a line with a longer one goes
  int64_t fewest_words = 3;     // a line of fewer goes
};

/// Lines by what became of them.
struct C4Lines {
  uint64_t kept = 0, long_word = 0, open = 0, few_words = 0, javascript = 0, policy = 0;
};

class C4 {
 public:
  explicit C4(const C4Options& options) : options_(options) {}
  /// Writes the values of kC4 in its order. The sentences are those of the lines that stay; they are not defined where
  /// `lorem ipsum` or a { ends the reading. With `to_end` it goes on, for kept_text() alone, as if such a line stayed.
  void measure(QualityText& text, std::span<double> values, bool to_end = false);
  /// Of the last measure(): the lines that stay, joined by line feeds.
  const std::string& kept_text() const { return kept_; }
  uint64_t kept_words() const { return kept_words_; }  // in it
  const C4Lines& lines() const { return lines_; }

 private:
  enum class Fate { kept, long_word, open, few_words, javascript, policy, lorem_ipsum, curly_bracket };
  Fate fate_of(std::string_view& line);

  C4Options options_;
  C4Lines lines_;
  uint64_t kept_words_ = 0;
  std::string kept_, cut_, lower_;
  bool has_lorem_ipsum_ = false, has_javascript_ = false, has_policy_ = false;  // somewhere in the document
};

}  // namespace coppice
