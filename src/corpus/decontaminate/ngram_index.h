// The n-grams of all benchmarks, and where they stand in a text.
//   what is indexed   every window of n = min(13, words) words of an item's normal form, or of every n in 4 to 13
//   a window's hash   P(i + n) - P(i) B^n with the prefix sums P(i + 1) = P(i) B + XXH3(word i), mod 2^64
//   finding           a window of any length opens with the shortest one, so that one probe of a bit filter at a word
//                     decides whether there is more to look at; then filter and table for each length, and at last the
//                     words themselves: no hit is a matter of hashes
// Memory: 24 bytes an n-gram, 8 for each time that an item has it, the normal forms, the filter (64 MB at most).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/decontaminate/benchmarks.h"

namespace coppice {

inline constexpr size_t kMinNgram = 4, kMaxNgram = 13;  // words; items below the first are not covered

struct IndexOptions {
  bool every_length = false;              // false: the longest alone
  bool questions = true, answers = true;  // parts: the question; the question with its right answer
};

struct IndexedItem {
  uint32_t benchmark = 0, number = 0;  // of the benchmark's items, from 0
};

class NgramIndex {
 public:
  /// UserError::bad_file for more than 4 GB of benchmark text, and where no item has four words.
  NgramIndex(const std::vector<Benchmark>& benchmarks, const IndexOptions& options);

  uint32_t size() const { return static_cast<uint32_t>(ngrams_.size()); }
  uint64_t memory_bytes() const;
  std::string_view text(uint32_t ngram) const { return {texts_.data() + ngrams_[ngram].begin, ngrams_[ngram].bytes}; }
  /// Of everything that the numbers of n-grams and items depend on.
  uint64_t hash() const { return hash_; }

  const std::vector<std::string>& benchmarks() const { return names_; }
  const std::vector<IndexedItem>& items() const { return items_; }
  std::span<const uint32_t> ngrams_of(uint32_t item) const {
    return list(ngrams_of_, ngram_starts_, item);
  }  // sorted; none: not covered
  std::span<const uint32_t> items_of(uint32_t ngram) const { return list(items_of_, item_starts_, ngram); }  // sorted

 private:
  friend class NgramSearch;
  struct Ngram {
    uint64_t hash;
    uint32_t begin, bytes;  // in texts_
  };
  static std::span<const uint32_t> list(const std::vector<uint32_t>& values, const std::vector<uint64_t>& starts,
                                        uint32_t place) {
    return std::span(values).subspan(starts[place], starts[place + 1] - starts[place]);
  }
  /// Of a window of texts_; a new number where it is not there yet.
  uint32_t number_of(std::string_view window, uint64_t hash);
  void grow();
  void make_filter();
  void invert();
  void set(uint64_t hash) { filter_[hash >> filter_shift_] |= bits_of(hash); }
  bool test(uint64_t hash) const { return (filter_[hash >> filter_shift_] & bits_of(hash)) == bits_of(hash); }
  static uint64_t bits_of(uint64_t hash) { return uint64_t{1} << (hash & 63) | uint64_t{1} << (hash >> 6 & 63); }

  std::string texts_;  // normal forms, a line each
  std::vector<Ngram> ngrams_;
  std::vector<uint32_t> slots_;  // open addressing: n-gram + 1, 0 = free
  std::vector<uint64_t> filter_;
  int filter_shift_ = 58;
  std::vector<size_t> lengths_;  // that there are, ascending
  std::vector<std::string> names_;
  std::vector<IndexedItem> items_;
  std::vector<uint32_t> ngrams_of_, items_of_;
  std::vector<uint64_t> ngram_starts_, item_starts_;
  uint64_t hash_ = 0;
};

struct NgramHit {
  uint32_t ngram = 0, word = 0;  // the number of its first word in the text
};

/// Looks for the n-grams in one text after the other; one a thread.
class NgramSearch {
 public:
  explicit NgramSearch(const NgramIndex& index) : index_(index) {}
  /// Of a text in UTF-8. Valid until the next call; by word, then by length.
  const std::vector<NgramHit>& find(std::string_view text);
  /// Of words in normal form that stand one blank apart in one string.
  const std::vector<NgramHit>& find(const std::vector<std::string_view>& words);
  size_t num_words() const { return words_.size(); }  // of the last text
  size_t length(uint32_t ngram) const;                // words

 private:
  uint32_t look_up(uint64_t hash, std::string_view text) const;  // n-gram + 1, or 0

  const NgramIndex& index_;
  std::string normal_;
  std::vector<std::string_view> words_;
  std::vector<uint64_t> sums_;
  std::vector<uint32_t> starts_;
  std::vector<NgramHit> hits_;
};

}  // namespace coppice
