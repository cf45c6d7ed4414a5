#include "src/text/words/words.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <cstring>
#include <utility>

#include "src/text/words/english_words.h"

namespace coppice {
namespace {

constexpr size_t kRemembered = size_t{1} << 16;

/// What a byte of a text may begin: 0 nothing that separates, 1 white space, 2 a code point to be looked at.
constexpr std::array<uint8_t, 256> kSpaceOf = [] {
  std::array<uint8_t, 256> kinds{};
  for (int byte = 0x9; byte <= 0xD; ++byte) kinds[static_cast<size_t>(byte)] = 1;
  for (int byte = 0x1C; byte <= 0x20; ++byte) kinds[static_cast<size_t>(byte)] = 1;
  for (const int lead : {0xC2, 0xE1, 0xE2, 0xE3}) kinds[static_cast<size_t>(lead)] = 2;
  return kinds;
}();

bool is_white_space_at(const char* at) {
  const uint8_t kind = kSpaceOf[static_cast<unsigned char>(*at)];
  return kind == 1 || (kind == 2 && CharacterFlags::table()[next_code_point(at)] & character::kWhiteSpace);
}

const char* skip_code_point(const char* at) {
  next_code_point(at);
  return at;
}

/// Where the chunk that begins at `at` ends.
const char* chunk_end(const char* at, const char* end) {
  while (at != end) {
    while (at != end && kSpaceOf[static_cast<unsigned char>(*at)] == 0) ++at;
    if (at == end || is_white_space_at(at)) break;
    at = skip_code_point(at);
  }
  return at;
}

std::string_view between(const char* begin, const char* end) { return {begin, static_cast<size_t>(end - begin)}; }

bool is_sign(uint32_t code_point) {
  return (CharacterFlags::table()[code_point] & (character::kMark | character::kSymbol)) != 0;
}

template <class Visit>
void cut_peeled(std::string_view chunk, bool cut_unspaced, const Visit& visit) {
  const char *begin = chunk.data(), *end = begin + chunk.size();
  for (const char* next = begin; begin != end && is_sign(next_code_point(next)); begin = next)
    visit(between(begin, next));
  const char* behind = end;
  for (const char* previous = end; begin != end && is_sign(previous_code_point(previous)); end = previous) {
  }
  if (cut_unspaced) {
    const char* word = begin;
    for (const char* at = begin; at != end;) {
      const char* const first = at;
      if (!(CharacterFlags::table()[next_code_point(at)] & character::kUnspaced)) continue;
      if (word != first) visit(between(word, first));
      visit(between(first, at));
      word = at;
    }
    begin = word;
  }
  if (begin != end) visit(between(begin, end));
  for (const char* at = end; at != behind; at = skip_code_point(at)) visit(between(at, skip_code_point(at)));
}

}  // namespace

std::optional<WordRule> find_word_rule(std::string_view name) {
  static constexpr std::pair<std::string_view, WordRule> kNames[] = {{"whitespace", WordRule::whitespace},
                                                                     {"peeled", WordRule::peeled},
                                                                     {"english", WordRule::english},
                                                                     {"auto", WordRule::automatic}};
  for (const auto& [known, rule] : kNames)
    if (name == known) return rule;
  return std::nullopt;
}

const char* skip_white_space(const char* at, const char* end) {
  while (at != end && is_white_space_at(at)) at = skip_code_point(at);
  return at;
}

std::string_view strip(std::string_view text) {
  const char *begin = text.data(), *end = begin + text.size();
  begin = skip_white_space(begin, end);
  for (const char* previous = end; begin != end; end = previous) {
    const uint32_t code_point = previous_code_point(previous);
    if (!(CharacterFlags::table()[code_point] & character::kWhiteSpace)) break;
  }
  return between(begin, end);
}

WordSplitter::WordSplitter(WordRule rule) : rule_(rule) {}

WordRule WordSplitter::rule_for(std::string_view language) const {
  return rule_ == WordRule::automatic && (language.empty() || language == "en") ? WordRule::english : rule_;
}

template <class Visit>
void WordSplitter::cut_english(std::string_view chunk, const Visit& visit) {
  if (remembered_.empty()) remembered_.resize(kRemembered);
  Remembered* place = nullptr;
  if (chunk.size() <= sizeof(Remembered::text)) {
    place = &remembered_[XXH3_64bits(chunk.data(), chunk.size()) & (kRemembered - 1)];
    if (place->bytes == chunk.size() && std::memcmp(place->text, chunk.data(), chunk.size()) == 0) {
      size_t begin = 0;
      for (size_t i = 0; i < place->count; begin = place->ends[i++]) visit(chunk.substr(begin, place->ends[i] - begin));
      return;
    }
  }
  EnglishWords::rules().cut(chunk, ends_);
  size_t begin = 0;
  for (const uint32_t end : ends_) {
    visit(chunk.substr(begin, end - begin));
    begin = end;
  }
  if (place == nullptr || ends_.size() > sizeof(Remembered::ends)) return;
  place->bytes = static_cast<uint8_t>(chunk.size());
  place->count = static_cast<uint8_t>(ends_.size());
  for (size_t i = 0; i < ends_.size(); ++i) place->ends[i] = static_cast<uint8_t>(ends_[i]);
  std::memcpy(place->text, chunk.data(), chunk.size());
}

template <class Visit, class VisitGap>
void WordSplitter::visit_words(std::string_view text, WordRule rule, const Visit& visit, const VisitGap& visit_gap) {
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    const char* const begin = skip_white_space(at, end);
    if (begin != at) visit_gap(between(at, begin));
    if (begin == end) break;
    const std::string_view chunk = between(begin, chunk_end(begin, end));
    at = begin + chunk.size();
    switch (rule) {
      case WordRule::whitespace:
        visit(chunk);
        break;
      case WordRule::english:
        cut_english(chunk, visit);
        break;
      case WordRule::peeled:
      case WordRule::automatic:
        cut_peeled(chunk, rule == WordRule::automatic, visit);
        break;
    }
  }
}

void WordSplitter::split(std::string_view text, std::vector<std::string_view>& words, std::string_view language) {
  words.clear();
  visit_words(
      text, rule_for(language), [&](std::string_view word) { words.push_back(word); }, [](std::string_view) {});
}

size_t WordSplitter::count_sentences(std::string_view text, std::string_view language) {
  const CharacterFlags& flags = CharacterFlags::table();
  WordRule rule = rule_for(language);
  if (rule == WordRule::whitespace) rule = WordRule::english;
  size_t count = 0;
  bool is_closed = false;
  const auto meet = [&](bool is_end, bool is_punctuation) {
    if (count == 0 || (is_closed && !is_end && !is_punctuation)) {
      ++count;
      is_closed = is_end;
    } else {
      is_closed |= is_end;
    }
  };
  const auto visit = [&](std::string_view word) {
    const char* at = word.data();
    const char* const end = at + word.size();
    const uint16_t first = flags[next_code_point(at)];
    const bool is_end = at == end && (first & character::kSentenceEnd) != 0;
    bool is_punctuation = (first & character::kMark) != 0;
    while (is_punctuation && at != end) is_punctuation = (flags[next_code_point(at)] & character::kMark) != 0;
    meet(is_end, is_punctuation);
  };
  visit_words(text, rule, visit, [&](std::string_view gap) {
    if (gap != " " || count == 0) meet(false, false);
  });
  return count;
}

}  // namespace coppice
