// Account numbers of ISO 13616: a country, two check digits, and as many letters and digits as the country says.
#include <algorithm>

#include "src/corpus/personal/check_digits.h"
#include "src/corpus/personal/kinds.h"

namespace coppice {
namespace {

struct Country {
  std::string_view code;
  size_t length;
};
// SWIFT's IBAN registry, by code
constexpr Country kCountries[] = {
    {"AD", 24}, {"AE", 23}, {"AL", 28}, {"AT", 20}, {"AZ", 28}, {"BA", 20}, {"BE", 16}, {"BG", 22}, {"BH", 22},
    {"BI", 27}, {"BR", 29}, {"BY", 28}, {"CH", 21}, {"CR", 22}, {"CY", 28}, {"CZ", 24}, {"DE", 22}, {"DJ", 27},
    {"DK", 18}, {"DO", 28}, {"EE", 20}, {"EG", 29}, {"ES", 24}, {"FI", 18}, {"FK", 18}, {"FO", 18}, {"FR", 27},
    {"GB", 22}, {"GE", 22}, {"GI", 23}, {"GL", 18}, {"GR", 27}, {"GT", 28}, {"HN", 28}, {"HR", 21}, {"HU", 28},
    {"IE", 22}, {"IL", 23}, {"IQ", 23}, {"IS", 26}, {"IT", 27}, {"JO", 30}, {"KW", 30}, {"KZ", 20}, {"LB", 28},
    {"LC", 32}, {"LI", 21}, {"LT", 20}, {"LU", 20}, {"LV", 21}, {"LY", 25}, {"MC", 27}, {"MD", 24}, {"ME", 22},
    {"MK", 19}, {"MN", 20}, {"MR", 27}, {"MT", 31}, {"MU", 30}, {"NI", 28}, {"NL", 18}, {"NO", 15}, {"OM", 23},
    {"PK", 24}, {"PL", 28}, {"PS", 29}, {"PT", 25}, {"QA", 29}, {"RO", 24}, {"RS", 22}, {"RU", 33}, {"SA", 24},
    {"SC", 31}, {"SD", 18}, {"SE", 24}, {"SI", 19}, {"SK", 24}, {"SM", 27}, {"SO", 23}, {"ST", 25}, {"SV", 28},
    {"TL", 23}, {"TN", 24}, {"TR", 26}, {"UA", 29}, {"VA", 22}, {"VG", 24}, {"XK", 20}, {"YE", 30},
};
static_assert(std::ranges::is_sorted(kCountries, {}, &Country::code));

size_t length_of(std::string_view code) {
  const Country* row = std::ranges::lower_bound(kCountries, code, {}, &Country::code);
  return row != std::end(kCountries) && row->code == code ? row->length : 0;
}

}  // namespace

/// `at` is the first check digit.
std::optional<TextSpan> match_iban(std::string_view text, size_t at, size_t from) {
  if (at < from + 2 || !is_upper(text[at - 1]) || !is_upper(text[at - 2])) return std::nullopt;
  const size_t begin = at - 2;
  if (at + 1 >= text.size() || !is_digit(text[at + 1]) || letter_ends(text, begin, from)) return std::nullopt;
  const size_t length = length_of(text.substr(begin, 2));
  size_t end = begin, signs = 0;
  while (end < text.size() && signs < length) {
    if (text[end] == ' ' && signs % 4 == 0 && text[end - 1] != ' ') {
      ++end;
    } else if (is_digit(text[end]) || is_upper(text[end])) {
      ++end, ++signs;
    } else {
      break;
    }
  }
  if (length == 0 || signs < length || letter_begins(text, end)) return std::nullopt;
  return mod97_holds(text.substr(begin, end - begin)) ? std::optional(TextSpan{begin, end}) : std::nullopt;
}

}  // namespace coppice
