// Words, sentences and lines of a text: what quality rules, classifiers and samples count.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/words/characters.h"
#include "src/text/words/code_points.h"

namespace coppice {

class EnglishWords;

enum class WordRule {
  whitespace,  // what lies between white space
  peeled,      // the same, then signs taken off both ends, each a word
  english,     // as spaCy cuts English, on whose words FineWeb's thresholds were chosen
  automatic,   // english for English; else peeled, and each character of a script without blanks a word
};
/// By its name in a recipe: whitespace, peeled, english, auto.
std::optional<WordRule> find_word_rule(std::string_view name);

/// Cuts texts into words. Keeps the pieces of chunks it has met (2 MB): one a thread. What it answers does not depend
/// on what it was asked before. Texts are valid UTF-8, below 4 GB.
class WordSplitter {
 public:
  explicit WordSplitter(WordRule rule);
  /// Views into `text`, in its order; `words` is overwritten. `language` (ISO 639-1, "" is taken for English) is what
  /// `automatic` goes by.
  void split(std::string_view text, std::vector<std::string_view>& words, std::string_view language = "");

 private:
  struct Remembered {  // half a cache line
    uint8_t bytes = 0, count = 0;
    uint8_t ends[6] = {};
    char text[24] = {};
  };

  void cut_english(std::string_view chunk, std::vector<std::string_view>& words);

  WordRule rule_;
  const EnglishWords& rules_;
  std::vector<Remembered> remembered_;  // by hash of the chunk; the later one takes the place
  std::vector<uint32_t> ends_;
};

/// A word that is a sign of `sentence_end` closes a sentence; the next one that is neither such a word nor made of
/// punctuation opens another. White space is such a word where it is more than one blank. As spaCy's sentencizer counts
/// in `text`, of which `words` are the english ones (the peeled ones serve, those of `whitespace` hold no signs).
size_t count_sentences(std::string_view text, std::span<const std::string_view> words);

/// Where the white space that begins at `at` of valid UTF-8 ends: `at` where there is none.
const char* skip_white_space(const char* at, const char* end);
/// Where the chunk without white space that begins at `at` ends.
const char* skip_chunk(const char* at, const char* end);
/// Without white space at its ends.
std::string_view strip_blanks(std::string_view text);

/// Calls visit(line) for what Python's str.splitlines gives: cut at LF, CR LF, CR, VT, FF, FS, GS, RS, NEL, U+2028 and
/// U+2029; nothing behind the last one.
template <class Visit>
void for_each_line(std::string_view text, const Visit& visit) {
  const char* const end = text.data() + text.size();
  const char* begin = text.data();
  for (const char* at = begin; at != end;) {
    const char* const last = at;
    const auto byte = static_cast<unsigned char>(*at);
    if (byte >= 0x20 && byte < 0x80) {
      ++at;
      continue;
    }
    if (!(CharacterFlags::table()[next_code_point(at)] & character::kLineEnd)) continue;
    if (byte == '\r' && at != end && *at == '\n') ++at;
    visit(std::string_view(begin, static_cast<size_t>(last - begin)));
    begin = at;
  }
  if (begin != end) visit(std::string_view(begin, static_cast<size_t>(end - begin)));
}

}  // namespace coppice
