#include "src/corpus/decontaminate/ngram_index.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "src/base/errors.h"
#include "src/text/words/normal_form.h"

namespace coppice {
namespace {

constexpr uint64_t kBase = 0x9E3779B97F4A7C15;  // odd

constexpr auto kPowers = [] {
  std::array<uint64_t, kMaxNgram + 1> powers{1};
  for (size_t n = 1; n < powers.size(); ++n) powers[n] = powers[n - 1] * kBase;
  return powers;
}();

uint64_t word_hash(std::string_view word) { return XXH3_64bits(word.data(), word.size()); }

/// sums[i]: of the first i words.
void sum_words(const std::vector<std::string_view>& words, std::vector<uint64_t>& sums) {
  sums.resize(words.size() + 1);
  sums[0] = 0;
  for (size_t i = 0; i < words.size(); ++i) sums[i + 1] = sums[i] * kBase + word_hash(words[i]);
}

/// Of the window of n words from word i on; its high and low bits are as random as each other.
uint64_t window_hash(const std::vector<uint64_t>& sums, size_t i, size_t n) {
  uint64_t hash = (sums[i + n] - sums[i] * kPowers[n]) * 0xFF51AFD7ED558CCD;
  hash ^= hash >> 32;
  return hash * 0xC4CEB9FE1A85EC53 ^ hash >> 29;
}

/// The window as it stands in the normal form that the words are views of.
std::string_view window_text(const std::vector<std::string_view>& words, size_t i, size_t n) {
  const std::string_view last = words[i + n - 1];
  return {words[i].data(), static_cast<size_t>(last.data() + last.size() - words[i].data())};
}

}  // namespace

NgramIndex::NgramIndex(const std::vector<Benchmark>& benchmarks, const IndexOptions& options) {
  slots_.resize(1024);
  ngram_starts_ = {0};
  std::string normal;
  std::vector<std::string_view> words;
  std::vector<uint64_t> sums;
  std::vector<uint32_t> found;
  const auto add_text = [&](const std::string& text) {
    normal_form(text, normal);
    const size_t begin = texts_.size();
    if (begin + normal.size() + 1 > std::numeric_limits<uint32_t>::max())
      throw UserError::bad_file("benchmarks", "more than 4 GB of text; decontaminate with fewer at a time");
    (texts_ += normal) += '\n';
    split_normal_form(std::string_view(texts_).substr(begin, normal.size()), words);
    if (words.size() < kMinNgram) return texts_.resize(begin);
    const size_t longest = std::min(kMaxNgram, words.size());
    sum_words(words, sums);
    for (size_t n = options.every_length ? kMinNgram : longest; n <= longest; ++n) {
      for (size_t i = 0; i + n <= words.size(); ++i)
        found.push_back(number_of(window_text(words, i, n), window_hash(sums, i, n)));
      if (std::ranges::find(lengths_, n) == lengths_.end()) lengths_.push_back(n);
    }
  };
  for (const Benchmark& benchmark : benchmarks) {
    for (const BenchmarkItem& item : benchmark.items) {
      found.clear();
      if (options.questions || item.with_answer.empty()) add_text(item.question);
      if (options.answers && !item.with_answer.empty()) add_text(item.with_answer);
      std::ranges::sort(found);
      found.erase(std::ranges::unique(found).begin(), found.end());
      items_.push_back({.benchmark = static_cast<uint32_t>(names_.size()),
                        .number = static_cast<uint32_t>(&item - benchmark.items.data())});
      ngrams_of_.insert(ngrams_of_.end(), found.begin(), found.end());
      ngram_starts_.push_back(ngrams_of_.size());
    }
    names_.push_back(benchmark.name);
  }
  if (ngrams_.empty()) throw UserError::bad_file("benchmarks", "no item has four words; nothing can be looked for");
  std::ranges::sort(lengths_);
  make_filter();
  invert();
  hash_ = XXH3_64bits(texts_.data(), texts_.size());
  hash_ = XXH3_64bits_withSeed(ngrams_of_.data(), ngrams_of_.size() * sizeof(uint32_t), hash_);
  hash_ = XXH3_64bits_withSeed(ngram_starts_.data(), ngram_starts_.size() * sizeof(uint64_t), hash_);
}

uint32_t NgramIndex::number_of(std::string_view window, uint64_t hash) {
  size_t slot = hash & (slots_.size() - 1);
  for (; slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1))
    if (ngrams_[slots_[slot] - 1].hash == hash && text(slots_[slot] - 1) == window) return slots_[slot] - 1;
  ngrams_.push_back({.hash = hash,
                     .begin = static_cast<uint32_t>(window.data() - texts_.data()),
                     .bytes = static_cast<uint32_t>(window.size())});
  slots_[slot] = size();
  if (2 * ngrams_.size() > slots_.size()) grow();
  return size() - 1;
}

void NgramIndex::grow() {
  slots_.assign(2 * slots_.size(), 0);
  for (uint32_t ngram = 0; ngram < ngrams_.size(); ++ngram) {
    size_t slot = ngrams_[ngram].hash & (slots_.size() - 1);
    while (slots_[slot] != 0) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = ngram + 1;
  }
}

/// Two bits within one word of 64 for every n-gram and for every beginning of the shortest length.
void NgramIndex::make_filter() {
  constexpr uint64_t kMaxBits = uint64_t{1} << 29, kBitsEach = 32;
  const uint64_t bits = std::min(kMaxBits, std::bit_ceil(kBitsEach * ngrams_.size() + 64 * 64));
  filter_.assign(bits / 64, 0);
  filter_shift_ = 64 - std::countr_zero(filter_.size());
  std::vector<std::string_view> words;
  std::vector<uint64_t> sums;
  for (uint32_t ngram = 0; ngram < size(); ++ngram) {
    split_normal_form(text(ngram), words);
    words.resize(lengths_.front());
    sum_words(words, sums);
    set(window_hash(sums, 0, lengths_.front()));
    set(ngrams_[ngram].hash);
  }
}

uint64_t NgramIndex::memory_bytes() const {
  return texts_.capacity() + ngrams_.capacity() * sizeof(Ngram) + filter_.capacity() * sizeof(uint64_t) +
         (ngram_starts_.capacity() + item_starts_.capacity()) * sizeof(uint64_t) +
         (slots_.capacity() + ngrams_of_.capacity() + items_of_.capacity()) * sizeof(uint32_t);
}

void NgramIndex::invert() {
  item_starts_.assign(ngrams_.size() + 1, 0);
  for (const uint32_t ngram : ngrams_of_) ++item_starts_[ngram + 1];
  for (size_t i = 0; i < ngrams_.size(); ++i) item_starts_[i + 1] += item_starts_[i];
  items_of_.resize(ngrams_of_.size());
  std::vector<uint64_t> next(item_starts_.begin(), item_starts_.end() - 1);
  for (uint32_t item = 0; item < items_.size(); ++item)
    for (const uint32_t ngram : ngrams_of(item)) items_of_[next[ngram]++] = item;
}

const std::vector<NgramHit>& NgramSearch::find(std::string_view text) {
  normal_form(text, normal_);
  split_normal_form(normal_, words_);
  return find(words_);
}

const std::vector<NgramHit>& NgramSearch::find(const std::vector<std::string_view>& words) {
  hits_.clear();
  const size_t shortest = index_.lengths_.front();
  if (words.size() < shortest) return hits_;
  sum_words(words, sums_);
  const size_t places = words.size() - shortest + 1;
  starts_.resize(places);
  size_t num_starts = 0;
  for (size_t i = 0; i < places; ++i) {  // without a branch: the probes of the filter overlap
    starts_[num_starts] = static_cast<uint32_t>(i);
    num_starts += index_.test(window_hash(sums_, i, shortest)) ? 1 : 0;
  }
  for (size_t start = 0; start < num_starts; ++start) {
    const uint32_t i = starts_[start];
    for (const size_t n : index_.lengths_) {
      if (i + n > words.size()) break;
      const uint64_t hash = window_hash(sums_, i, n);
      if (!index_.test(hash)) continue;
      const uint32_t found = look_up(hash, window_text(words, i, n));
      if (found != 0) hits_.push_back({.ngram = found - 1, .word = i});
    }
  }
  return hits_;
}

uint32_t NgramSearch::look_up(uint64_t hash, std::string_view text) const {
  const std::vector<uint32_t>& slots = index_.slots_;
  for (size_t slot = hash & (slots.size() - 1); slots[slot] != 0; slot = (slot + 1) & (slots.size() - 1))
    if (index_.ngrams_[slots[slot] - 1].hash == hash && index_.text(slots[slot] - 1) == text) return slots[slot];
  return 0;
}

size_t NgramSearch::length(uint32_t ngram) const {
  return static_cast<size_t>(1 + std::ranges::count(index_.text(ngram), ' '));
}

}  // namespace coppice
