// What words, sentences, lines and quality rules ask of a code point: flags. White space and letters are
// Unicode's (15.0); the four lists are those that datatrove 0.10 and spaCy 3.8 use.
#pragma once

#include <array>
#include <cstdint>

namespace coppice {

namespace character {
inline constexpr uint16_t kPunctuation = 1;  // a word of these alone is none for rules about the lengths of words
inline constexpr uint16_t kSpaced = 2;       // a blank in the normal form
inline constexpr uint16_t kTerminal = 4;     // ends a line of prose
inline constexpr uint16_t kSentenceEnd = 8;  // as a word of its own: ends a sentence
inline constexpr uint16_t kWhiteSpace = 16;  // as Python's str.isspace
inline constexpr uint16_t kLineEnd = 32;     // as Python's str.splitlines: LF VT FF CR FS GS RS NEL U+2028 U+2029
inline constexpr uint16_t kLetter = 64;      // category L
inline constexpr uint16_t kUnspaced = 128;   // Han, Kana, Thai, Lao, Khmer, Myanmar: written without blanks
inline constexpr uint16_t kMark = 256;       // category P
inline constexpr uint16_t kSymbol = 512;     // category S
inline constexpr uint16_t kDigit = 1024;     // category Nd
inline constexpr uint16_t kCapital = 2048;   // category Lu
}  // namespace character

/// Flags of every code point; made once, 256 kB.
class CharacterFlags {
 public:
  static const CharacterFlags& table();
  uint16_t operator[](uint32_t code_point) const {
    return code_point < flags_.size() ? flags_[code_point] : flags_of(code_point);
  }

 private:
  CharacterFlags();
  static uint16_t flags_of(uint32_t code_point);

  std::array<uint16_t, 0x20000> flags_;  // planes 0 and 1; behind them are ideographs
};

}  // namespace coppice
