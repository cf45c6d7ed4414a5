// Mail addresses: atoms of RFC 5322 joined by dots, '@', labels joined by dots, the last of at least two letters.
#include <array>

#include "src/corpus/personal/kinds.h"

namespace coppice {
namespace {

constexpr size_t kMaxAddressBytes = 254;  // RFC 5321
constexpr std::string_view kAtomSigns = "!#$%&'*+-/=?^_`{|}~.";

constexpr auto kIsLocal = [] {
  std::array<bool, 256> table{};
  for (int c = 0; c < 128; ++c)
    table[c] = is_alnum(static_cast<char>(c)) || kAtomSigns.find(static_cast<char>(c)) != std::string_view::npos;
  return table;
}();

/// Where the local part before the '@' begins, a letter, digit or '_'; `at` itself where there is none.
size_t local_begin(std::string_view text, size_t at, size_t from) {
  size_t begin = at;
  while (begin > from && at - begin <= kMaxAddressBytes && kIsLocal[static_cast<unsigned char>(text[begin - 1])]) {
    if (text[begin - 1] == '.' && (begin == at || text[begin] == '.')) break;  // an empty atom
    --begin;
  }
  while (begin < at && !is_alnum(text[begin]) && text[begin] != '_') ++begin;  // quotes, '=' and the like around it
  return begin;
}

/// Where the longest domain ends that starts at `begin` and has a dot; `begin` where there is none.
size_t domain_end(std::string_view text, size_t begin) {
  size_t end = begin;
  for (size_t label = begin; label < text.size() && label - begin <= kMaxAddressBytes;) {
    size_t at = label, letters = label;
    while (at < text.size() && at - begin <= kMaxAddressBytes &&
           (is_alnum(text[at]) || (text[at] == '-' && at > label)))
      ++at;
    while (letters < at && is_letter(text[letters])) ++letters;
    if (label > begin && letters - label >= 2 && !letter_begins(text, letters)) end = letters;
    if (at == label || at == text.size() || text[at] != '.' || text[at - 1] == '-') break;
    label = at + 1;
  }
  return end;
}

/// `name@2x.png`: a picture for a finer screen.
bool is_picture(std::string_view domain) {
  constexpr std::array kEndings = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg"};
  for (const std::string_view ending : kEndings)
    if (domain.ends_with(ending)) return is_digit(domain.front());
  return false;
}

}  // namespace

std::optional<TextSpan> match_email(std::string_view text, size_t at, size_t from) {
  const size_t begin = local_begin(text, at, from);
  if (begin == at || letter_ends(text, begin, from)) return std::nullopt;
  const size_t end = domain_end(text, at + 1);
  if (end <= at + 1 || end - begin > kMaxAddressBytes) return std::nullopt;
  if (is_picture(text.substr(at + 1, end - at - 1))) return std::nullopt;
  return TextSpan{begin, end};
}

}  // namespace coppice
