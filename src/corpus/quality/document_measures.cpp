#include "src/corpus/quality/document_measures.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace coppice {
namespace {

// What a word holds.
constexpr uint8_t kLetter = 1, kMoreThanPunctuation = 2, kBeyondAscii = 4;

constexpr std::array<uint8_t, 256> kBytes = [] {
  std::array<uint8_t, 256> kinds{};
  for (size_t byte = 0x80; byte < 0x100; ++byte) kinds[byte] = kBeyondAscii;
  for (size_t digit = '0'; digit <= '9'; ++digit) kinds[digit] = kMoreThanPunctuation;
  for (size_t letter = 'a'; letter <= 'z'; ++letter)
    kinds[letter] = kinds[letter - 'a' + 'A'] = kLetter | kMoreThanPunctuation;
  return kinds;
}();

struct WordKind {
  uint8_t holds = 0;
  size_t length = 0;  // code points
};

WordKind kind_of(std::string_view word) {
  WordKind kind{.length = word.size()};
  for (const char byte : word) kind.holds |= kBytes[static_cast<unsigned char>(byte)];
  if (!(kind.holds & kBeyondAscii)) return kind;
  kind.length = 0;
  for (const char* at = word.data(); at != word.data() + word.size(); ++kind.length) {
    const uint16_t flags = CharacterFlags::table()[next_code_point(at)];
    if (flags & character::kLetter) kind.holds |= kLetter;
    if (!(flags & character::kPunctuation)) kind.holds |= kMoreThanPunctuation;
  }
  return kind;
}

/// Which of Gopher's stop words a word is, as a bit; capital letters are others.
unsigned stop_word_bit(std::string_view word) {
  static constexpr std::string_view kStopWords[] = {"the", "be", "to", "of", "and", "that", "have", "with"};
  if (word.size() < 2 || word.size() > 4) return 0;
  for (unsigned i = 0; i < std::size(kStopWords); ++i)
    if (word == kStopWords[i]) return 1U << i;
  return 0;
}

/// How often `sought` occurs, one place behind the other.
uint64_t occurrences(std::string_view text, std::string_view sought) {
  uint64_t count = 0;
  for (size_t at = text.find(sought); at != std::string_view::npos; at = text.find(sought, at + sought.size())) ++count;
  return count;
}

double ratio(uint64_t part, uint64_t whole) { return static_cast<double>(part) / static_cast<double>(whole); }

bool ends_in_ellipsis(std::string_view text) { return text.ends_with("...") || text.ends_with("\u2026"); }

uint16_t last_flags(std::string_view text) {
  const char* at = text.data() + text.size();
  return text.empty() ? 0 : CharacterFlags::table()[previous_code_point(at)];
}

/// Bytes of a URL that a text begins with: http://, https:// or www. and what follows up to white space, brackets or
/// quotes; signs at its end are not of it. 0 for none.
size_t url_bytes(std::string_view text) {
  size_t begin = 0;
  for (const std::string_view start : {"http://", "https://", "www."})
    if (text.starts_with(start)) begin = start.size();
  if (begin == 0) return 0;
  size_t end = begin;
  while (end < text.size() && static_cast<unsigned char>(text[end]) > 0x20 &&
         std::string_view("<>()\"'`").find(text[end]) == std::string_view::npos)
    ++end;
  while (end > begin && std::string_view(".,:;!?").find(text[end - 1]) != std::string_view::npos) --end;
  return end > begin ? end : 0;
}

}  // namespace

void measure_gopher_quality(QualityText& text, std::span<double> values) {
  const std::vector<std::string_view>& words = text.words();
  uint64_t solid = 0, length = 0, with_letter = 0;
  unsigned stop_words = 0;
  for (const std::string_view word : words) {
    const WordKind kind = kind_of(word);
    with_letter += kind.holds & kLetter;
    if (kind.holds & kMoreThanPunctuation) ++solid, length += kind.length;
    stop_words |= stop_word_bit(word);
  }
  uint64_t lines = 0, bullets = 0, ellipses = 0;
  for_each_line(text.text(), [&](std::string_view line) {
    ++lines;
    const std::string_view stripped = strip(line);
    bullets += stripped.starts_with("\u2022") || stripped.starts_with('-');
    ellipses += ends_in_ellipsis(stripped);
  });
  values[0] = static_cast<double>(solid);
  if (solid > 0) values[1] = ratio(length, solid);
  if (!words.empty()) {
    values[2] = ratio(occurrences(text.text(), "#"), words.size());
    values[3] = ratio(occurrences(text.text(), "...") + occurrences(text.text(), "\u2026"), words.size());
    values[6] = ratio(with_letter, words.size());
    values[7] = std::popcount(stop_words);
  }
  if (lines > 0) {
    values[4] = ratio(bullets, lines);
    values[5] = ratio(ellipses, lines);
  }
}

void measure_fineweb(QualityText& text, int64_t short_line, Repetition& repetition, std::span<double> values) {
  const std::string_view whole = text.text();
  const auto line_ends = static_cast<uint64_t>(std::count(whole.begin(), whole.end(), '\n'));
  uint64_t lines = 0, closed = 0, short_lines = 0;
  repetition.start(line_ends + 1);
  for (size_t begin = 0; begin < whole.size();) {
    const size_t end = std::min(whole.find('\n', begin), whole.size());
    const std::string_view line = whole.substr(begin, end - begin);
    begin = end + 1;
    if (skip_white_space(line.data(), line.data() + line.size()) == line.data() + line.size()) continue;
    ++lines;
    closed += (last_flags(line) & character::kTerminal) != 0;
    short_lines += static_cast<int64_t>(num_code_points(line)) <= short_line;
    repetition.add(line);
  }
  if (lines > 0) {
    values[0] = ratio(closed, lines);
    values[1] = ratio(short_lines, lines);
    values[2] = ratio(repetition.repeats().length, text.length() - line_ends);
  }
  if (text.num_words() > 0) values[3] = ratio(line_ends, text.num_words());
}

void measure_ratios(QualityText& text, std::span<double> values) {
  uint64_t others = 0, digits = 0, urls = 0, white_space = 0, brackets = 0, sentences = 0, open = 0;
  const std::string_view whole = text.text();
  const CharacterFlags& table = CharacterFlags::table();
  const char* const end = whole.data() + whole.size();
  for (const char* at = whole.data(); at != end;) {
    const char* const begin = at;
    const uint32_t code_point = next_code_point(at);
    const uint16_t flags = table[code_point];
    const bool is_digit = flags & character::kDigit;
    digits += is_digit;
    white_space += (flags & character::kWhiteSpace) != 0;
    others += !is_digit && !(flags & character::kLetter) &&
              (code_point >= 0x80 ||
               std::string_view("\n?!,.").find(static_cast<char>(code_point)) == std::string_view::npos);
    brackets +=
        code_point < 0x80 && std::string_view("()[]{}").find(static_cast<char>(code_point)) != std::string_view::npos;
    if (code_point == 'h' || code_point == 'w')
      if (const size_t bytes = url_bytes({begin, static_cast<size_t>(end - begin)}); bytes > 0) {
        // its characters count as what they are as well
        urls += num_code_points({begin, bytes});
      }
  }
  for_each_line(whole, [&](std::string_view line) {
    const std::string_view stripped = strip(line);
    if (stripped.empty()) return;
    const uint64_t count = text.count_line(stripped).sentences;
    const bool is_open = !(last_flags(stripped) & (character::kSentenceEnd | character::kTerminal));
    sentences += count;
    open += is_open;  // the last of a line: the others were closed
  });
  const uint64_t length = text.length();
  if (length > 0) {
    values[0] = ratio(others, length);
    values[1] = ratio(digits, length);
    values[2] = ratio(urls, length);
    values[3] = ratio(white_space, length);
    values[4] = ratio(brackets, length);
  }
  if (sentences > 0) values[5] = ratio(open, sentences);
}

}  // namespace coppice
