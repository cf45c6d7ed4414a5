#include "src/corpus/quality/dclm_lines.h"

#include <algorithm>

#include "src/text/words/words.h"

namespace coppice {
namespace {

constexpr size_t kFewestWords = 2, kMostWordsOfShop = 10;
constexpr std::string_view kCounted[] = {"likes",     "shares",  "comments",  "retweets",  "reposts", "quotes",
                                         "bookmarks", "upvotes", "downvotes", "downloads", "views",   "followers"};

size_t count_words(std::string_view text) {
  size_t count = 0;
  const char* const end = text.data() + text.size();
  for (const char* at = skip_white_space(text.data(), end); at != end; ++count)
    at = skip_white_space(skip_chunk(at, end), end);
  return count;
}

bool is_digit(char byte) { return byte >= '0' && byte <= '9'; }
char lower(char byte) { return static_cast<char>(byte >= 'A' && byte <= 'Z' ? byte - 'A' + 'a' : byte); }

/// Behind signs, which are neither letters, digits nor the underscore.
const char* skip_signs(const char* at, const char* end) {
  while (at != end) {
    const char* next = at;
    const uint32_t code_point = next_code_point(next);
    const uint16_t flags = CharacterFlags::table()[code_point];
    if (code_point == '_' || (flags & (character::kLetter | character::kDigit))) break;
    at = next;
  }
  return at;
}

/// A number, maybe with commas, stops and one of k, m, b, white space and one of the words above, with signs around.
bool is_counter(std::string_view line) {
  const char* const end = line.data() + line.size();
  const char* at = skip_signs(line.data(), end);
  if (at == end || !is_digit(*at)) return false;
  while (at != end && (is_digit(*at) || *at == ',' || *at == '.')) ++at;
  if (at != end && std::string_view("kmb").find(lower(*at)) != std::string_view::npos) ++at;
  const char* const word = skip_white_space(at, end);
  if (word == at) return false;
  const std::string_view rest(word, static_cast<size_t>(end - word));
  return std::ranges::any_of(kCounted, [&](std::string_view counted) {
    return rest.size() >= counted.size() &&
           std::equal(counted.begin(), counted.end(), rest.begin(), [](char a, char b) { return a == lower(b); }) &&
           skip_signs(word + counted.size(), end) == end;
  });
}

}  // namespace

bool is_dclm_line_dropped(std::string_view line) {
  if (line.empty()) return false;
  size_t length = 0, capitals = 0, digits = 0;
  for (const char* at = line.data(); at != line.data() + line.size(); ++length) {
    const uint16_t flags = CharacterFlags::table()[next_code_point(at)];
    capitals += (flags & character::kCapital) != 0;
    digits += (flags & character::kDigit) != 0;
  }
  if (2 * capitals > length || digits == length || is_counter(line)) return true;
  const size_t words = count_words(line);
  if (words < kFewestWords) return true;
  return words <= kMostWordsOfShop && (line.find("items in cart") != std::string_view::npos ||
                                       line.ends_with("Read more...") || line.starts_with("Sign-in"));
}

bool measure_dclm_lines(std::string_view text, std::span<double> values, std::string& kept) {
  uint64_t words = 0, removed = 0, dropped_lines = 0;
  const auto for_each = [&](const auto& visit) {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      visit(text.substr(begin, end - begin));
      begin = end + 1;
    }
  };
  for_each([&](std::string_view line) {
    const size_t count = count_words(line);
    words += count;
    if (!is_dclm_line_dropped(line)) return;
    removed += count;
    ++dropped_lines;
  });
  if (words > 0) values[0] = static_cast<double>(removed) / static_cast<double>(words);
  if (dropped_lines == 0) return false;
  kept.clear();
  for_each([&](std::string_view line) {
    if (is_dclm_line_dropped(line)) return;
    kept += line;
    kept += '\n';
  });
  kept = std::string(strip_blanks(kept));
  return true;
}

}  // namespace coppice
