// How much of a document repeats itself: Gopher's and FineWeb's rules about lines, paragraphs and n-grams of words,
// with datatrove's formulas. Sums are integers and divided once, so that values are equal to its own to the last bit.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/quality/hash_counts.h"
#include "src/corpus/quality/quality_text.h"

namespace coppice {

/// Pieces that stood before, and the code points in them.
struct Repeats {
  uint64_t pieces = 0, repeated = 0, length = 0;
};

class Repetition {
 public:
  /// Of any pieces, one after the other.
  void start(size_t most_pieces) {
    seen_.start(most_pieces);
    repeats_ = {};
  }
  void add(std::string_view piece);
  const Repeats& repeats() const { return repeats_; }

  /// Values of kGopherRepetition, in its order. A top n-gram of fewer than n words is not defined.
  void measure(QualityText& text, std::span<double> values);

 private:
  static constexpr size_t kFirstTop = 2, kNumTops = 3;  // 2-, 3-, 4-grams
  static constexpr size_t kFirstDup = 5, kNumDups = 6;  // 5- to 10-grams

  void look_at_words(QualityText& text);
  /// Code points in the commonest n-gram, joined by blanks, times its count; for n = 2, 3, 4 one after the other.
  uint64_t top(size_t n, size_t num_words);
  void find_repeated_beginnings(size_t num_words);
  uint64_t duplicate_length(size_t n, size_t num_words);

  HashCounts seen_;
  Repeats repeats_;
  std::string joined_;             // all words, without blanks
  std::vector<uint64_t> hashes_;   // of words, then of the n-grams that begin with them
  std::vector<uint32_t> offsets_;  // of words in joined_
  std::vector<uint32_t> lengths_;  // code points before a word
  std::vector<uint32_t> places_;   // words where an n-gram that occurs twice may begin, ascending
  std::vector<uint32_t> slots_;
};

}  // namespace coppice
