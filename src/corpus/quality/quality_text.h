// A text as all quality rules see it: one split shared by them. One object a thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "src/text/words/words.h"

namespace coppice {

/// What is known of the words, one by one and together.
struct WordFacts {
  std::vector<uint64_t> hashes;   // equal for equal words
  std::vector<uint32_t> lengths;  // code points
  uint64_t solid = 0;             // words that hold more than punctuation
  uint64_t solid_length = 0;      // code points in them
  uint64_t with_letter = 0;
  unsigned stop_words = 0;  // how many different ones of the, be, to, of, and, that, have, with; capitals are others
};

class QualityText {
 public:
  explicit QualityText(WordRule rule);

  /// Another text, which outlives its use here. `num_words`, where given: how many it has.
  void set(std::string_view text, std::string_view language, std::optional<uint64_t> num_words = std::nullopt);
  std::string_view text() const { return text_; }
  uint64_t length();  // code points
  const std::vector<std::string_view>& words();
  const WordFacts& facts();
  uint64_t num_words();
  struct Line {
    uint64_t sentences = 0, words = 0;
  };
  /// Counts a line on the words of the text, of which it is a part or was one; sentences on english words where the
  /// rule is whitespace. Lines are best asked for in their order.
  Line count_line(std::string_view line);

 private:
  std::string_view text_, language_;
  WordRule rule_;
  WordSplitter splitter_, sentence_splitter_;
  std::vector<std::string_view> words_, line_words_;
  WordFacts facts_;
  std::optional<uint64_t> num_words_;
  uint64_t length_ = 0;
  bool has_words_ = false, has_facts_ = false, has_length_ = false;
  size_t next_word_ = 0;
};

}  // namespace coppice
