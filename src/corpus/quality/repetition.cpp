#include "src/corpus/quality/repetition.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>
#include <limits>

namespace coppice {
namespace {

constexpr size_t kBeginning = 16;  // bytes

/// Calls visit(piece) for what lies between runs of at least `least` line feeds.
template <class Visit>
void for_each_piece(std::string_view text, size_t least, const Visit& visit) {
  size_t begin = 0;
  for (size_t at = text.find('\n'); at != std::string_view::npos; at = text.find('\n', at)) {
    const size_t end = std::min(text.find_first_not_of('\n', at), text.size());
    if (end - at >= least) {
      visit(text.substr(begin, at - begin));
      begin = end;
    }
    at = end;
  }
  visit(text.substr(begin));
}

double ratio(uint64_t part, uint64_t whole) { return static_cast<double>(part) / static_cast<double>(whole); }

}  // namespace

void Repetition::add(std::string_view piece) {
  ++repeats_.pieces;
  if (seen_.count(seen_.add(XXH3_64bits(piece.data(), piece.size()))) == 1) return;
  ++repeats_.repeated;
  repeats_.length += num_code_points(piece);
}

void Repetition::look_at_words(QualityText& text) {
  const std::vector<std::string_view>& words = text.words();
  const WordFacts& facts = text.facts();
  const char* const end = text.text().data() + text.text().size();
  joined_.resize(text.text().size() + kBeginning);
  hashes_ = facts.hashes;
  offsets_.resize(words.size() + 1);
  lengths_.resize(words.size() + 1);
  uint32_t offset = 0, length = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    offsets_[i] = offset;
    lengths_[i] = length;
    const bool is_short = word.size() <= kBeginning && static_cast<size_t>(end - word.data()) >= kBeginning;
    if (is_short)
      std::memcpy(joined_.data() + offset, word.data(), kBeginning);  // one move; what follows writes over the rest
    else
      std::memcpy(joined_.data() + offset, word.data(), word.size());
    offset += static_cast<uint32_t>(word.size());
    length += facts.lengths[i];
  }
  offsets_.back() = offset;
  lengths_.back() = length;
  std::memset(joined_.data() + offset, 0, kBeginning);
}

// An n-gram occurs twice only where the (n - 1)-grams that it begins and ends with do: places_ holds where these do,
// which soon are few.
uint64_t Repetition::top(size_t n, size_t num_words) {
  const auto length_at = [&](size_t place) { return lengths_[place + n] - lengths_[place] + n - 1; };
  const size_t num_grams = num_words - n + 1;
  if (n == kFirstTop) {
    places_.resize(num_grams);
    for (size_t i = 0; i < num_grams; ++i) places_[i] = static_cast<uint32_t>(i);
  } else {
    size_t kept = 0;
    for (size_t i = 0; i + 1 < places_.size(); ++i)
      if (places_[i] + 1 == places_[i + 1]) places_[kept++] = places_[i];
    places_.resize(kept);
  }
  seen_.start(places_.size());
  slots_.resize(places_.size());
  // hashes_[i] is of the (n - 1)-gram at i, and becomes that of the n-gram: the word behind it is mixed in, by the hash
  // of the (n - 1)-gram that ends with it.
  for (size_t i = 0; i < places_.size(); ++i) {
    const uint32_t place = places_[i];
    hashes_[place] = mix_hashes(hashes_[place], hashes_[place + 1]);
    slots_[i] = seen_.add(hashes_[place]);
  }
  uint32_t most = 1, first = 0;  // of equal counts the first counts
  size_t kept = 0;
  for (size_t i = 0; i < places_.size(); ++i) {
    const uint32_t count = seen_.count(slots_[i]);
    if (count > most) most = count, first = places_[i];
    if (count > 1) places_[kept++] = places_[i];
  }
  places_.resize(kept);
  return most * length_at(first);
}

// Runs of words are equal when their letters are, wherever the words are cut. So what may occur twice is what begins
// with 16 bytes that occur twice, and what is shorter.
void Repetition::find_repeated_beginnings(size_t num_words) {
  places_.clear();
  if (num_words < kFirstDup) return;
  const size_t num_grams = num_words - kFirstDup + 1;
  seen_.start(num_grams);
  slots_.resize(num_grams);
  for (size_t i = 0; i < num_grams; ++i) {
    uint64_t halves[2];
    std::memcpy(halves, joined_.data() + offsets_[i], sizeof halves);
    slots_[i] = seen_.add(mix_hashes(halves[0], halves[1]));
  }
  for (size_t i = 0; i < num_grams; ++i)
    if (seen_.count(slots_[i]) > 1 || offsets_[i + kFirstDup] - offsets_[i] < kBeginning)
      places_.push_back(static_cast<uint32_t>(i));
}

uint64_t Repetition::duplicate_length(size_t n, size_t num_words) {
  uint64_t length = 0;
  seen_.start(places_.size());
  size_t next = 0;  // the word from which on n-grams are looked at: behind one that stood before, n words on
  for (const uint32_t place : places_) {
    if (place < next) continue;
    if (place + n > num_words) break;
    const uint64_t hash = XXH3_64bits(joined_.data() + offsets_[place], offsets_[place + n] - offsets_[place]);
    if (seen_.count(seen_.add(hash)) == 1) continue;
    length += lengths_[place + n] - lengths_[place];
    next = place + n;
  }
  return length;
}

void Repetition::measure(QualityText& text, std::span<double> values) {
  const std::string_view stripped = strip_blanks(text.text());
  const size_t num_lines = static_cast<size_t>(std::count(text.text().begin(), text.text().end(), '\n')) + 1;
  const uint64_t length = text.length();
  size_t at = 0;
  const auto measure_pieces = [&](std::string_view part, size_t least) {
    start(num_lines);
    for_each_piece(part, least, [this](std::string_view piece) { add(piece); });
    values[at++] = ratio(repeats_.repeated, repeats_.pieces);
    values[at++] = ratio(repeats_.length, length);
  };
  measure_pieces(stripped, 2);
  measure_pieces(text.text(), 1);

  const size_t num_words = text.words().size();
  look_at_words(text);
  for (size_t n = kFirstTop; n < kFirstTop + kNumTops; ++n, ++at)
    if (num_words >= n) values[at] = ratio(top(n, num_words), length);
  find_repeated_beginnings(num_words);
  for (size_t n = kFirstDup; n < kFirstDup + kNumDups; ++n)
    values[at++] = ratio(duplicate_length(n, num_words), length);
}

}  // namespace coppice
