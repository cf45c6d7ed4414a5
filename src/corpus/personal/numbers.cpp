// Telephone, card, account and social security numbers.
#include <algorithm>

#include "src/corpus/personal/check_digits.h"
#include "src/corpus/personal/kinds.h"

namespace coppice {
namespace {

/// A number stands where its digits begin: those inside of a run are no anchors.
bool run_begins(std::string_view text, size_t at, size_t from) { return at == from || !is_digit(text[at - 1]); }

/// Bytes of a sign that separates groups of digits at `at`: blank, dot or dash, among them the no-break blank and the
/// dashes U+2010 to U+2013; 0 where there is none.
size_t separator_bytes(std::string_view text, size_t at) {
  if (at >= text.size()) return 0;
  if (text[at] == ' ' || text[at] == '.' || text[at] == '-') return 1;
  if (text.substr(at, 2) == "\xC2\xA0") return 2;
  if (text.substr(at, 2) == "\xE2\x80" && at + 2 < text.size() && text[at + 2] >= '\x90' && text[at + 2] <= '\x93')
    return 3;
  return 0;
}

/// Whether the digits at `at` are exactly `count`.
bool has_digits(std::string_view text, size_t at, size_t count) {
  if (at + count > text.size() || (at + count < text.size() && is_digit(text[at + count]))) return false;
  for (size_t i = at; i < at + count; ++i)
    if (!is_digit(text[i])) return false;
  return true;
}

/// `(ddd) ddd-dddd` or `ddd-ddd-dddd` from `begin` on, which is a bracket or the area's first digit: where it ends.
std::optional<size_t> us_number_end(std::string_view text, size_t begin) {
  const bool bracket = text[begin] == '(';
  const size_t area = begin + (bracket ? 1 : 0);
  if (!has_digits(text, area, 3) || text[area] < '2') return std::nullopt;
  size_t exchange = area + 3;
  if (bracket) {
    if (exchange >= text.size() || text[exchange++] != ')') return std::nullopt;
    exchange += separator_bytes(text, exchange);
  } else {
    const size_t bytes = separator_bytes(text, exchange);
    if (bytes == 0 || text[exchange] == ' ') return std::nullopt;
    exchange += bytes;
  }
  if (!has_digits(text, exchange, 3) || text[exchange] < '2') return std::nullopt;
  const size_t bytes = separator_bytes(text, exchange + 3);
  if (bytes == 0 || !has_digits(text, exchange + 3 + bytes, 4)) return std::nullopt;
  return exchange + 3 + bytes + 4;
}

/// '+', then 8 to 15 digits (E.164), eleven behind +1, in groups: the longest number that ends with a group. A group
/// of one or two digits behind a dot and a long one are decimals.
std::optional<size_t> international_end(std::string_view text, size_t plus) {
  size_t at = plus + 1, digits = 0, group = 0;
  if (at >= text.size() || text[at] < '1' || text[at] > '9') return std::nullopt;
  const size_t most = text[at] == '1' ? 11 : 15;
  std::optional<size_t> end;
  while (at < text.size()) {
    const size_t run = digits_end(text.substr(0, std::min(text.size(), at + 16)), at);
    if (run == at || digits + (run - at) > most) break;
    if (text[at - 1] == '.' && group > 2 && run - at <= 2) return std::nullopt;
    group = run - at;
    digits += group;
    if (digits >= 8 && number_ends(text, run)) end = run;
    at = run;
    // up to two signs between groups: a separator, a bracket, or both
    for (int signs = 0; signs < 2; ++signs) {
      const bool bracket = at < text.size() && (text[at] == '(' || text[at] == ')');
      at += bracket ? 1 : separator_bytes(text, at);
    }
  }
  return end;
}

}  // namespace

std::optional<TextSpan> match_phone(std::string_view text, size_t at, size_t from) {
  std::optional<size_t> end;
  if (text[at] == '+') {
    if (letter_ends(text, at, from) || (at > from && text[at - 1] == '+')) return std::nullopt;
    end = international_end(text, at);
  } else if (run_begins(text, at, from)) {
    if (text[at] == '(' ? letter_ends(text, at, from) : !number_begins(text, at, from)) return std::nullopt;
    const size_t country = has_digits(text, at, 1) && text[at] == '1' ? 1 + separator_bytes(text, at + 1) : 0;  // 1-
    if (at + country < text.size()) end = us_number_end(text, at + country);
  }
  if (!end || !number_ends(text, *end)) return std::nullopt;
  return TextSpan{at, *end};
}

/// 13 to 19 digits in one run, or as cards are printed, by one blank or dash: 4 4 4 4 and the rest, 4 6 4, 4 6 5.
std::optional<TextSpan> match_card(std::string_view text, size_t at, size_t from) {
  if (!run_begins(text, at, from) || !number_begins(text, at, from)) return std::nullopt;
  const std::string_view issuer = text.substr(at, 4);
  const bool known =
      (issuer[0] >= '3' && issuer[0] <= '6') || (digits_end(issuer, 0) == 4 && issuer >= "2221" && issuer <= "2720");
  if (!known) return std::nullopt;
  std::optional<size_t> end;
  size_t digits = 0;
  size_t second = 4;  // digits of the second group
  for (size_t group = at, number = 0; number < 5; ++number) {
    const size_t run = digits_end(text.substr(0, std::min(text.size(), group + 20)), group), count = run - group;
    digits += count;
    if (count == 0 || digits > 19) break;
    if (number == 1 && count == 6) second = 6;
    const bool may_end = number == 0 || (second == 6 ? number == 2 && (count == 4 || count == 5) : count <= 4);
    if (may_end && digits >= 13 && number_ends(text, run) && luhn_holds(text.substr(at, run - at))) end = run;
    const bool goes_on = run < text.size() && (text[run] == ' ' || text[run] == '-');
    const bool same_sign = group == at || (goes_on && text[run] == text[group - 1]);
    if (!goes_on || !same_sign || count != (number == 1 ? second : 4)) break;
    group = run + 1;
  }
  return end ? std::optional(TextSpan{at, *end}) : std::nullopt;
}

std::optional<TextSpan> match_ssn(std::string_view text, size_t at, size_t from) {
  if (!run_begins(text, at, from) || !number_begins(text, at, from)) return std::nullopt;
  if (!has_digits(text, at, 3) || at + 11 > text.size() || text[at + 3] != '-' || text[at + 6] != '-')
    return std::nullopt;
  if (!has_digits(text, at + 4, 2) || !has_digits(text, at + 7, 4)) return std::nullopt;
  const std::string_view area = text.substr(at, 3);
  if (area == "000" || area == "666" || area[0] == '9' || text.substr(at + 4, 2) == "00" ||
      text.substr(at + 7, 4) == "0000")
    return std::nullopt;
  return number_ends(text, at + 11) ? std::optional(TextSpan{at, at + 11}) : std::nullopt;
}

}  // namespace coppice
