#include "src/tasks/python_text.h"

#include <algorithm>
#include <array>

namespace coppice {
namespace {

constexpr std::array<std::string_view, 29> kSpaces = {
    " ",      "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",   "\x1f",
    "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
    "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};

/// Bytes of the white space that `text` begins with; 0: none.
size_t leading_space(std::string_view text) {
  for (const std::string_view space : kSpaces)
    if (text.starts_with(space)) return space.size();
  return 0;
}

bool begins_code_point(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

}  // namespace

std::string_view strip_left(std::string_view text) {
  while (const size_t bytes = leading_space(text)) text.remove_prefix(bytes);
  return text;
}

std::string_view strip_right(std::string_view text) {
  for (bool found = true; found;) {
    found = false;
    for (const std::string_view space : kSpaces)
      if (text.ends_with(space)) {
        text.remove_suffix(space.size());
        found = true;
      }
  }
  return text;
}

std::string_view strip(std::string_view text) { return strip_left(strip_right(text)); }

size_t count_words(std::string_view text) {
  size_t runs = 0;
  for (bool in_run = false; !text.empty();) {
    const size_t bytes = leading_space(text);
    runs += bytes > 0 && !in_run;
    in_run = bytes > 0;
    text.remove_prefix(std::max<size_t>(bytes, 1));
  }
  return runs + 1;
}

std::vector<std::string> code_points(std::string_view text) {
  std::vector<std::string> points;
  for (const char c : text) {
    if (begins_code_point(c) || points.empty()) points.emplace_back();
    points.back() += c;
  }
  return points;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  size_t begin = 0;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, begin)) {
    result.append(text.substr(begin, at - begin)).append(to);
    begin = at + from.size();
  }
  return result.append(text.substr(begin));
}

std::vector<std::string> split_text(std::string_view text, std::string_view separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t at = text.find(separator); at != std::string_view::npos; at = text.find(separator, begin)) {
    parts.emplace_back(text.substr(begin, at - begin));
    begin = at + separator.size();
  }
  parts.emplace_back(text.substr(begin));
  return parts;
}

bool is_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace coppice
