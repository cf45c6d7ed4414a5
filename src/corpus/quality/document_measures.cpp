#include "src/corpus/quality/document_measures.h"

#include <algorithm>
#include <string_view>

namespace coppice {
namespace {

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
  const WordFacts& facts = text.facts();
  const uint64_t words = text.num_words();
  uint64_t lines = 0, bullets = 0, ellipses = 0;
  for_each_line(text.text(), [&](std::string_view line) {
    ++lines;
    const std::string_view stripped = strip_blanks(line);
    bullets += stripped.starts_with("\u2022") || stripped.starts_with('-');
    ellipses += ends_in_ellipsis(stripped);
  });
  values[0] = static_cast<double>(facts.solid);
  if (facts.solid > 0) values[1] = ratio(facts.solid_length, facts.solid);
  if (words > 0) {
    values[2] = ratio(occurrences(text.text(), "#"), words);
    values[3] = ratio(occurrences(text.text(), "...") + occurrences(text.text(), "\u2026"), words);
    values[6] = ratio(facts.with_letter, words);
    values[7] = facts.stop_words;
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
  const char* behind_url = whole.data();  // what lies in front of it is of a URL: no other begins there
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
    if ((code_point == 'h' || code_point == 'w') && begin >= behind_url) {
      const size_t bytes = url_bytes({begin, static_cast<size_t>(end - begin)});
      urls += num_code_points({begin, bytes});  // which count as what they are as well
      behind_url = begin + bytes;
    }
  }
  for_each_line(whole, [&](std::string_view line) {
    const std::string_view stripped = strip_blanks(line);
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
