#include "src/corpus/quality/quality_text.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <bit>
#include <cstring>
#include <functional>

#include "src/corpus/quality/hash_counts.h"

namespace coppice {
namespace {

// Words of up to eight ASCII bytes, which most are, lie in one integer: its bytes are looked at together, each by the
// carry into its highest bit.
constexpr size_t kPacked = 8;
constexpr uint64_t kOnes = 0x0101010101010101U, kHighs = 0x80 * kOnes;

/// The first byte lowest; `end` is that of the text.
uint64_t pack(std::string_view word, const char* end) {
  uint64_t packed = 0;
  if (static_cast<size_t>(end - word.data()) < kPacked) {
    std::memcpy(&packed, word.data(), word.size());
    return packed;
  }
  std::memcpy(&packed, word.data(), kPacked);
  return packed & (~uint64_t{0} >> (8 * (kPacked - word.size())));
}

constexpr uint64_t pack(std::string_view word) {
  uint64_t packed = 0;
  for (size_t i = word.size(); i-- > 0;) packed = packed << 8 | static_cast<unsigned char>(word[i]);
  return packed;
}

/// The highest bit of each byte that is within [first, last], of bytes below 0x80.
constexpr uint64_t bytes_within(uint64_t packed, char first, char last) {
  return (packed + (0x80U - static_cast<unsigned char>(first)) * kOnes) &
         ~(packed + (0x7FU - static_cast<unsigned char>(last)) * kOnes) & kHighs;
}

/// Which stop word it is, as a bit; 0 for none.
unsigned stop_word_bit(uint64_t packed) {
  switch (packed) {
    case pack("the"):
      return 1;
    case pack("be"):
      return 2;
    case pack("to"):
      return 4;
    case pack("of"):
      return 8;
    case pack("and"):
      return 16;
    case pack("that"):
      return 32;
    case pack("have"):
      return 64;
    case pack("with"):
      return 128;
    default:
      return 0;
  }
}

}  // namespace

QualityText::QualityText(WordRule rule)
    : rule_(rule), splitter_(rule), sentence_splitter_(rule == WordRule::whitespace ? WordRule::english : rule) {}

void QualityText::set(std::string_view text, std::string_view language, std::optional<uint64_t> num_words) {
  text_ = text;
  language_ = language;
  num_words_ = num_words;
  has_words_ = has_facts_ = has_length_ = false;
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

const WordFacts& QualityText::facts() {
  if (has_facts_) return facts_;
  has_facts_ = true;
  words();
  const CharacterFlags& table = CharacterFlags::table();
  const char* const text_end = text_.data() + text_.size();
  facts_.hashes.resize(words_.size());
  facts_.lengths.resize(words_.size());
  facts_.solid = facts_.solid_length = facts_.with_letter = 0;
  unsigned stop_words = 0;
  for (size_t i = 0; i < words_.size(); ++i) {
    const std::string_view word = words_[i];
    const uint64_t packed = word.size() <= kPacked ? pack(word, text_end) : kHighs;
    uint32_t length = static_cast<uint32_t>(word.size());
    bool has_letter = false, is_solid = false;
    if (!(packed & kHighs)) {
      has_letter = bytes_within(packed | 0x20 * kOnes, 'a', 'z') != 0;
      is_solid = has_letter || bytes_within(packed, '0', '9') != 0;
      stop_words |= stop_word_bit(packed);
      facts_.hashes[i] = mix_hashes(packed, word.size());
    } else {
      length = 0;
      for (const char* at = word.data(); at != word.data() + word.size(); ++length) {
        const uint16_t flags = table[next_code_point(at)];
        has_letter |= (flags & character::kLetter) != 0;
        is_solid |= !(flags & character::kPunctuation);
      }
      facts_.hashes[i] = XXH3_64bits(word.data(), word.size());
    }
    facts_.lengths[i] = length;
    facts_.with_letter += has_letter;
    if (is_solid) ++facts_.solid, facts_.solid_length += length;
  }
  facts_.stop_words = static_cast<unsigned>(std::popcount(stop_words));
  return facts_;
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
