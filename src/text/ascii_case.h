// Names of protocols and markup: letters of ASCII are the same in both cases, nothing else is.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace coppice {

inline constexpr std::string_view kAsciiBlanks = " \t\r\n\f";

constexpr char lower_ascii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

inline std::string lower_ascii(std::string_view text) {
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(), [](char c) { return lower_ascii(c); });
  return lower;
}

inline bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) { return lower_ascii(x) == lower_ascii(y); });
}

inline bool starts_ignoring_case(std::string_view text, std::string_view begin) {
  return equals_ignoring_case(text.substr(0, begin.size()), begin);
}

/// Without ASCII blanks at its ends.
inline std::string_view trimmed_ascii(std::string_view text) {
  const size_t begin = text.find_first_not_of(kAsciiBlanks);
  return begin == std::string_view::npos ? std::string_view()
                                         : text.substr(begin, text.find_last_not_of(kAsciiBlanks) + 1 - begin);
}

}  // namespace coppice
