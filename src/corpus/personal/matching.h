// What the matchers of personal data have in common: classes of bytes, and what may stand beside a match.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace coppice {

struct TextSpan {
  size_t begin = 0, end = 0;  // bytes
  bool operator==(const TextSpan&) const = default;
};

/// Looks around text[at], one of the bytes that its kind is known by; reads nothing before `from`, where the match
/// before it ended. Looks at no more than a few hundred bytes, or at bytes that no other call looks at: so a text is
/// read in linear time whatever it holds.
using SpanMatcher = std::optional<TextSpan> (*)(std::string_view text, size_t at, size_t from);

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || is_upper(c); }
constexpr bool is_alnum(char c) { return is_digit(c) || is_letter(c); }
constexpr bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
constexpr char to_lower(char c) { return is_upper(c) ? static_cast<char>(c + ('a' - 'A')) : c; }

/// Two bytes of UTF-8 that are a letter, which is what the alphabets from Latin to Armenian have (U+00C0 to U+058F).
/// Scripts of three bytes a letter are written without blanks around an address.
constexpr bool is_wide_letter(unsigned char lead, unsigned char next) {
  return lead >= 0xC3 && lead <= 0xD6 && (next & 0xC0) == 0x80 && !(lead == 0xC3 && (next == 0x97 || next == 0xB7));
}

/// A letter or digit ends at `at`, or begins there.
constexpr bool letter_ends(std::string_view text, size_t at, size_t from = 0) {
  if (at > from && is_alnum(text[at - 1])) return true;
  return at >= from + 2 &&
         is_wide_letter(static_cast<unsigned char>(text[at - 2]), static_cast<unsigned char>(text[at - 1]));
}
constexpr bool letter_begins(std::string_view text, size_t at) {
  if (at < text.size() && is_alnum(text[at])) return true;
  return at + 1 < text.size() &&
         is_wide_letter(static_cast<unsigned char>(text[at]), static_cast<unsigned char>(text[at + 1]));
}

/// A number may begin at `at`: it is no rest of a word, of 3.14, of 2024-05 or of an address.
constexpr bool number_begins(std::string_view text, size_t at, size_t from) {
  if (letter_ends(text, at, from)) return false;
  return !(at >= from + 2 && (text[at - 1] == '.' || text[at - 1] == '-') && is_alnum(text[at - 2]));
}
/// The same of its end.
constexpr bool number_ends(std::string_view text, size_t at) {
  if (letter_begins(text, at) || (at < text.size() && text[at] == '@')) return false;
  return !(at + 1 < text.size() && (text[at] == '.' || text[at] == '-') && is_digit(text[at + 1]));
}
constexpr size_t digits_end(std::string_view text, size_t at) {
  while (at < text.size() && is_digit(text[at])) ++at;
  return at;
}

}  // namespace coppice
