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

constexpr std::array<bool, 256> kIsLetter = [] {
  std::array<bool, 256> letters{};
  for (size_t letter = 'a'; letter <= 'z'; ++letter) letters[letter] = letters[letter - 'a' + 'A'] = true;
  return letters;
}();

/// ASCII letters that the chunk begins with.
size_t num_letters(std::string_view chunk) {
  size_t count = 0;
  while (count < chunk.size() && kIsLetter[static_cast<unsigned char>(chunk[count])]) ++count;
  return count;
}

bool is_white_space_at(const char* at) {
  const uint8_t kind = kSpaceOf[static_cast<unsigned char>(*at)];
  return kind == 1 || (kind == 2 && CharacterFlags::table()[next_code_point(at)] & character::kWhiteSpace);
}

const char* skip_code_point(const char* at) {
  next_code_point(at);
  return at;
}

std::string_view between(const char* begin, const char* end) { return {begin, static_cast<size_t>(end - begin)}; }

bool is_sign(uint32_t code_point) {
  return (CharacterFlags::table()[code_point] & (character::kMark | character::kSymbol)) != 0;
}

void cut_peeled(std::string_view chunk, bool cut_unspaced, std::vector<std::string_view>& words) {
  const char *begin = chunk.data(), *end = begin + chunk.size();
  for (const char* next = begin; begin != end && is_sign(next_code_point(next)); begin = next)
    words.push_back(between(begin, next));
  const char* const behind = end;
  for (const char* previous = end; begin != end && is_sign(previous_code_point(previous));) end = previous;
  if (cut_unspaced)
    for (const char* at = begin; at != end;) {
      const char* const first = at;
      if (!(CharacterFlags::table()[next_code_point(at)] & character::kUnspaced)) continue;
      if (begin != first) words.push_back(between(begin, first));
      words.push_back(between(first, at));
      begin = at;
    }
  if (begin != end) words.push_back(between(begin, end));
  for (const char* at = end; at != behind; at = skip_code_point(at)) words.push_back(between(at, skip_code_point(at)));
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

const char* skip_chunk(const char* at, const char* end) {
  while (at != end) {
    while (at != end && kSpaceOf[static_cast<unsigned char>(*at)] == 0) ++at;
    if (at == end || is_white_space_at(at)) break;
    at = skip_code_point(at);
  }
  return at;
}

std::string_view strip_blanks(std::string_view text) {
  const char *begin = text.data(), *end = begin + text.size();
  begin = skip_white_space(begin, end);
  for (const char* previous = end; begin != end; end = previous) {
    const uint32_t code_point = previous_code_point(previous);
    if (!(CharacterFlags::table()[code_point] & character::kWhiteSpace)) break;
  }
  return between(begin, end);
}

WordSplitter::WordSplitter(WordRule rule) : rule_(rule), rules_(EnglishWords::rules()) {}

void WordSplitter::cut_english(std::string_view chunk, std::vector<std::string_view>& words) {
  // What most chunks are: letters, and maybe a comma or a full stop behind a small one.
  const size_t letters = num_letters(chunk);
  const bool has_stop = letters > 0 && letters + 1 == chunk.size() &&
                        (chunk[letters] == ',' || (chunk[letters] == '.' && chunk[letters - 1] >= 'a'));
  if ((letters == chunk.size() || has_stop) && !rules_.may_be_exception(chunk) &&
      !(has_stop && rules_.may_be_exception(chunk.substr(0, letters)))) {
    words.push_back(chunk.substr(0, letters));
    if (has_stop) words.push_back(chunk.substr(letters));
    return;
  }
  if (remembered_.empty()) remembered_.resize(kRemembered);
  Remembered* place = nullptr;
  if (chunk.size() <= sizeof(Remembered::text)) {
    place = &remembered_[XXH3_64bits(chunk.data(), chunk.size()) & (kRemembered - 1)];
    if (place->bytes == chunk.size() && std::memcmp(place->text, chunk.data(), chunk.size()) == 0) {
      size_t begin = 0;
      for (size_t i = 0; i < place->count; begin = place->ends[i++])
        words.push_back(chunk.substr(begin, place->ends[i] - begin));
      return;
    }
  }
  rules_.cut(chunk, ends_);
  size_t begin = 0;
  for (const uint32_t end : ends_) {
    words.push_back(chunk.substr(begin, end - begin));
    begin = end;
  }
  if (place == nullptr || ends_.size() > sizeof(Remembered::ends)) return;
  place->bytes = static_cast<uint8_t>(chunk.size());
  place->count = static_cast<uint8_t>(ends_.size());
  for (size_t i = 0; i < ends_.size(); ++i) place->ends[i] = static_cast<uint8_t>(ends_[i]);
  std::memcpy(place->text, chunk.data(), chunk.size());
}

void WordSplitter::split(std::string_view text, std::vector<std::string_view>& words, std::string_view language) {
  words.clear();
  const bool is_english =
      rule_ == WordRule::english || (rule_ == WordRule::automatic && (language.empty() || language == "en"));
  const char* const end = text.data() + text.size();
  for (const char* at = skip_white_space(text.data(), end); at != end; at = skip_white_space(at, end)) {
    const std::string_view chunk = between(at, skip_chunk(at, end));
    at += chunk.size();
    if (is_english)
      cut_english(chunk, words);
    else if (rule_ == WordRule::whitespace)
      words.push_back(chunk);
    else
      cut_peeled(chunk, rule_ == WordRule::automatic, words);
  }
}

size_t count_sentences(std::string_view text, std::span<const std::string_view> words) {
  const CharacterFlags& flags = CharacterFlags::table();
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
  const char* behind = text.data();
  const auto meet_gap = [&](const char* next) {
    if (next != behind && (count == 0 || next - behind > 1 || *behind != ' ')) meet(false, false);
  };
  for (const std::string_view word : words) {
    meet_gap(word.data());
    const char* at = word.data();
    behind = at + word.size();
    const uint16_t first = flags[next_code_point(at)];
    const bool is_end = at == behind && (first & character::kSentenceEnd) != 0;
    bool is_punctuation = (first & character::kMark) != 0;
    while (is_punctuation && at != behind) is_punctuation = (flags[next_code_point(at)] & character::kMark) != 0;
    meet(is_end, is_punctuation);
  }
  meet_gap(text.data() + text.size());
  return count;
}

}  // namespace coppice
