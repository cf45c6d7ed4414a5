// Addresses of the public Internet. What is private, documentation or reserved (IANA special-purpose registries, RFC
// 6890) names no one.
#include <algorithm>
#include <array>
#include <cstdint>

#include "src/corpus/personal/kinds.h"

namespace coppice {
namespace {

struct Net {
  uint32_t address;
  int bits;
};
constexpr uint32_t ip4(uint32_t a, uint32_t b = 0, uint32_t c = 0, uint32_t d = 0) {
  return a << 24 | b << 16 | c << 8 | d;
}
constexpr Net kNotPublic[] = {
    {ip4(0), 8},         {ip4(10), 8},       {ip4(100, 64), 10},      {ip4(127), 8},
    {ip4(169, 254), 16}, {ip4(172, 16), 12}, {ip4(192, 0, 0), 24},    {ip4(192, 0, 2), 24},
    {ip4(192, 168), 16}, {ip4(198, 18), 15}, {ip4(198, 51, 100), 24}, {ip4(203, 0, 113), 24},
    {ip4(224), 3},  // multicast and reserved
};

bool is_public(uint32_t address) {
  for (const Net& net : kNotPublic)
    if ((address ^ net.address) >> (32 - net.bits) == 0) return false;
  return true;
}

/// Four octets without leading zeros from `at` on; where they end, or nothing.
std::optional<size_t> read_ip4(std::string_view text, size_t at, uint32_t& address) {
  address = 0;
  for (int octet = 0; octet < 4; ++octet) {
    if (octet > 0 && (at >= text.size() || text[at++] != '.')) return std::nullopt;
    uint32_t value = 0;
    const size_t begin = at;
    while (at < text.size() && at < begin + 3 && is_digit(text[at]))
      value = value * 10 + static_cast<uint32_t>(text[at++] - '0');
    if (at == begin || value > 255 || (text[begin] == '0' && at > begin + 1)) return std::nullopt;
    address = address << 8 | value;
  }
  return at;
}

/// "version 10.0.19041.1", "Firefox/1.5.0.9": the word before says what it is.
bool is_version(std::string_view text, size_t at, size_t from) {
  constexpr std::array<std::string_view, 6> kWords = {"v", "ver", "version", "rev", "release", "section"};
  if (at >= from + 2 && text[at - 1] == '/' && is_letter(text[at - 2])) return true;
  for (int signs = 0; signs < 2 && at > from && (text[at - 1] == ' ' || text[at - 1] == '.' || text[at - 1] == ':');
       ++signs)
    --at;
  std::string word;
  while (at > from && word.size() < 8 && is_letter(text[at - 1])) word.insert(word.begin(), to_lower(text[--at]));
  return std::ranges::find(kWords, word) != kWords.end();
}

/// "11.5.2.3. Printing": the number of a heading opens its line, has no octet of three digits, and a dot or a title
/// follows.
bool is_heading(std::string_view text, const TextSpan& span) {
  constexpr size_t kMostBytes = 11, kMostBlanks = 16;
  size_t begin = span.begin;
  while (begin > 0 && span.begin - begin < kMostBlanks && (text[begin - 1] == ' ' || text[begin - 1] == '#')) --begin;
  if ((begin > 0 && text[begin - 1] != '\n') || span.end - span.begin > kMostBytes) return false;
  for (size_t at = span.begin; at < span.end; at = digits_end(text, at) + 1)
    if (digits_end(text, at) - at > 2) return false;
  if (span.end < text.size() && text[span.end] == '.') return true;
  const size_t title = std::min(
      text.substr(0, std::min(text.size(), span.end + kMostBlanks)).find_first_not_of(' ', span.end), text.size());
  return title > span.end && letter_begins(text, title);
}

std::optional<TextSpan> match_ip4(std::string_view text, size_t at, size_t from) {
  uint32_t address = 0;
  if (!number_begins(text, at, from)) return std::nullopt;
  const std::optional<size_t> end = read_ip4(text, at, address);
  if (!end || !number_ends(text, *end) || !is_public(address)) return std::nullopt;
  if (is_version(text, at, from) || is_heading(text, {at, *end})) return std::nullopt;
  return TextSpan{at, *end};
}

/// Groups of one to four hex digits, eight of them or fewer around one "::"; the last two may be an IPv4 address.
std::optional<size_t> read_ip6(std::string_view text, size_t at, std::array<uint32_t, 2>& first) {
  int groups = 0;
  bool gap = false;
  for (;;) {
    uint32_t address = 0;
    const std::optional<size_t> tail = groups <= 6 ? read_ip4(text, at, address) : std::nullopt;
    if (tail) return gap || groups == 6 ? tail : std::nullopt;
    uint32_t value = 0;
    const size_t begin = at;
    while (at < text.size() && at < begin + 5 && is_hex(text[at])) {
      const char c = to_lower(text[at++]);
      value = value << 4 | static_cast<uint32_t>(is_digit(c) ? c - '0' : c - 'a' + 10);
    }
    if (at - begin > 4) return std::nullopt;
    if (at > begin) {
      if (groups < 2) first[groups] = value;
      ++groups;
    } else if (!gap || text.substr(at - 2, 2) != "::") {
      return std::nullopt;  // ends in one ':'
    }
    if (groups == 8 || at >= text.size() || text[at] != ':') break;
    const bool is_gap = text.substr(at, 2) == "::";
    if (is_gap && gap) break;
    if (!is_gap && (at + 1 >= text.size() || !is_hex(text[at + 1]))) break;  // a colon of the sentence
    gap |= is_gap;
    at += is_gap ? 2 : 1;
    if (is_gap && (at >= text.size() || !is_hex(text[at]))) break;
  }
  return gap == (groups < 8) ? std::optional(at) : std::nullopt;
}

/// Public ones lie in 2000::/3, so that the first group has four digits and opens with 2 or 3. `at` is its colon.
std::optional<TextSpan> match_ip6(std::string_view text, size_t at, size_t from) {
  if (at < from + 4) return std::nullopt;
  const size_t begin = at - 4;
  if (text[begin] != '2' && text[begin] != '3') return std::nullopt;
  for (size_t i = begin; i < at; ++i)
    if (!is_hex(text[i])) return std::nullopt;
  if (letter_ends(text, begin, from) || (begin > from && text[begin - 1] == ':')) return std::nullopt;
  std::array<uint32_t, 2> first{};
  const std::optional<size_t> end = read_ip6(text, begin, first);
  if (!end || letter_begins(text, *end)) return std::nullopt;
  if (*end + 1 < text.size() && text[*end] == ':' && (text[*end + 1] == ':' || is_hex(text[*end + 1])))
    return std::nullopt;
  const bool documentation = (first[0] == 0x2001 && first[1] == 0xDB8) || (first[0] == 0x3FFF && first[1] < 0x1000);
  return documentation ? std::nullopt : std::optional(TextSpan{begin, *end});
}

}  // namespace

std::optional<TextSpan> match_ip(std::string_view text, size_t at, size_t from) {
  return text[at] == ':' ? match_ip6(text, at, from) : match_ip4(text, at, from);
}

}  // namespace coppice
