#include "src/corpus/quality/quality_text.h"

#include <functional>

namespace coppice {

QualityText::QualityText(WordRule rule)
    : rule_(rule), splitter_(rule), sentence_splitter_(rule == WordRule::whitespace ? WordRule::english : rule) {}

void QualityText::set(std::string_view text, std::string_view language, std::optional<uint64_t> num_words) {
  text_ = text;
  language_ = language;
  num_words_ = num_words;
  has_words_ = has_length_ = false;
  next_word_ = 0;
}

uint64_t QualityText::length() {
  if (!has_length_) length_ = num_code_points(text_);
  has_length_ = true;
  return length_;
}

const std::vector<std::string_view>& QualityText::words() {
  if (!has_words_) splitter_.split(text_, words_, language_);
  has_words_ = true;
  return words_;
}

uint64_t QualityText::num_words() { return num_words_ ? *num_words_ : words().size(); }

QualityText::Line QualityText::count_line(std::string_view line) {
  const bool is_part = std::less_equal<>()(text_.data(), line.data()) &&
                       std::less_equal<>()(line.data() + line.size(), text_.data() + text_.size());
  if (!is_part || rule_ == WordRule::whitespace) {
    splitter_.split(line, line_words_, language_);
    const size_t count = line_words_.size();
    if (rule_ == WordRule::whitespace) sentence_splitter_.split(line, line_words_, language_);
    return {.sentences = count_sentences(line, line_words_), .words = count};
  }
  words();
  if (next_word_ > 0 && std::less<>()(line.data(), words_[next_word_ - 1].data())) next_word_ = 0;
  while (next_word_ < words_.size() && words_[next_word_].data() < line.data()) ++next_word_;
  const size_t first = next_word_;
  while (next_word_ < words_.size() && words_[next_word_].data() < line.data() + line.size()) ++next_word_;
  const size_t count = next_word_ - first;
  return {.sentences = count_sentences(line, std::span(words_).subspan(first, count)), .words = count};
}

}  // namespace coppice
