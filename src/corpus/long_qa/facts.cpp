#include "src/corpus/long_qa/facts.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "src/text/ascii_case.h"
#include "src/text/words/characters.h"
#include "src/text/words/code_points.h"

namespace coppice {
namespace {

constexpr size_t kMaxNameWords = 4, kMinNameBytes = 3;

// Sorted.
constexpr std::string_view kStopWords[] = {
    "a",       "about",   "after",   "again",   "against", "all",    "also",     "although",  "am",    "among",
    "an",      "and",     "any",     "are",     "as",      "at",     "be",       "because",   "been",  "before",
    "being",   "below",   "between", "both",    "but",     "by",     "can",      "could",     "did",   "do",
    "does",    "down",    "during",  "each",    "either",  "even",   "every",    "few",       "for",   "from",
    "further", "had",     "has",     "have",    "he",      "her",    "here",     "hers",      "him",   "his",
    "how",     "however", "i",       "if",      "in",      "indeed", "into",     "is",        "it",    "its",
    "just",    "many",    "may",     "me",      "might",   "more",   "moreover", "most",      "much",  "must",
    "my",      "neither", "never",   "no",      "nor",     "not",    "now",      "of",        "off",   "often",
    "on",      "once",    "one",     "only",    "or",      "other",  "our",      "out",       "over",  "own",
    "perhaps", "same",    "shall",   "she",     "should",  "since",  "so",       "some",      "still", "such",
    "than",    "that",    "the",     "their",   "them",    "then",   "there",    "therefore", "these", "they",
    "this",    "those",   "though",  "through", "thus",    "to",     "too",      "two",       "under", "until",
    "up",      "upon",    "us",      "very",    "was",     "we",     "were",     "what",      "when",  "where",
    "whether", "which",   "while",   "who",     "whom",    "whose",  "why",      "will",      "with",  "within",
    "without", "would",   "yes",     "yet",     "you",     "your"};
static_assert(std::ranges::is_sorted(kStopWords));

constexpr std::string_view kMonths[] = {"January", "February", "March",     "April",   "May",      "June",
                                        "July",    "August",   "September", "October", "November", "December"};

enum class WordType { other, number, month, capital };

struct Word {
  WordType type;
  ByteSpan span;
  size_t num_digits = 0;
};

/// Runs of letters and digits; within a number also `. , : /` and within a word `' -` where such a sign stands between
/// two of its kind.
std::vector<Word> words_of(std::string_view text) {
  const CharacterFlags& flags = CharacterFlags::table();
  constexpr uint16_t kWord = character::kLetter | character::kDigit;
  std::vector<Word> words;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    const char* const begin = at;
    const uint16_t first = flags[next_code_point(at)];
    if ((first & kWord) == 0) continue;
    const bool number = (first & character::kDigit) != 0;
    bool mixed = false;
    size_t digits = number ? 1 : 0;
    while (at < end) {
      const char* next = at;
      const uint16_t flag = flags[next_code_point(next)];
      if ((flag & kWord) == 0) {
        const std::string_view inner = number ? ".,:/" : "'-";
        if (inner.find(*at) == std::string_view::npos || next >= end) break;
        const char* behind = next;
        if ((flags[next_code_point(behind)] & (number ? character::kDigit : character::kLetter)) == 0) break;
        at = next;
        continue;
      }
      digits += (flag & character::kDigit) != 0;
      mixed |= ((flag & character::kDigit) != 0) != number;
      at = next;
    }
    const ByteSpan span{static_cast<size_t>(begin - text.data()), static_cast<size_t>(at - text.data())};
    WordType type = WordType::other;
    if (!mixed && number) type = WordType::number;
    if (!mixed && (first & character::kCapital) != 0)
      type = std::ranges::find(kMonths, span.of(text)) != std::end(kMonths) ? WordType::month : WordType::capital;
    words.push_back({type, span, digits});
  }
  return words;
}

}  // namespace

bool is_stop_word(std::string_view word) {
  const std::string lower = lower_ascii(word.substr(0, word.find('\'')));  // I'm, that's
  return std::ranges::binary_search(kStopWords, std::string_view(lower));
}

bool is_stop_words(std::string_view text) {
  return std::ranges::all_of(words_of(text), [&](const Word& word) { return is_stop_word(word.span.of(text)); });
}

std::vector<Fact> find_facts(std::string_view sentence) {
  const std::vector<Word> words = words_of(sentence);
  const auto gap = [&](size_t i) {  // between words i and i + 1
    return sentence.substr(words[i].span.end, words[i + 1].span.begin - words[i].span.end);
  };
  const auto is_number = [&](size_t i) { return i < words.size() && words[i].type == WordType::number; };
  std::vector<Fact> facts;
  for (size_t i = 0; i < words.size(); ++i) {
    size_t first = i, last = i;
    switch (words[i].type) {
      case WordType::month:
        while (is_number(last + 1) && last < i + 2 && (gap(last) == " " || gap(last) == ", ")) ++last;
        if (i > 0 && is_number(i - 1) && gap(i - 1) == " ") --first;
        if (first == last) break;
        if (first < i && !facts.empty() && facts.back().span.begin == words[first].span.begin) facts.pop_back();
        facts.push_back({FactType::date, {words[first].span.begin, words[last].span.end}});
        break;
      case WordType::number:
        if (words[i].num_digits >= 2) facts.push_back({FactType::number, words[i].span});
        break;
      case WordType::capital:
        while (last + 1 < words.size() && words[last + 1].type == WordType::capital && gap(last) == " ") ++last;
        first = std::max<size_t>(first, 1);  // whose capital says nothing
        if (first <= last && last - first < kMaxNameWords && gap(first - 1) == " " &&
            words[last].span.end - words[first].span.begin >= kMinNameBytes)
          facts.push_back({FactType::name, {words[first].span.begin, words[last].span.end}});
        break;
      case WordType::other:
        break;
    }
    i = last;
  }
  return facts;
}

}  // namespace coppice
