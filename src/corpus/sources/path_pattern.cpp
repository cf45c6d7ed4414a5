#include "src/corpus/sources/path_pattern.h"

namespace coppice {

namespace {

constexpr std::string_view kFolders = "**";

/// Greedy with one step back to the last star: what a star takes is never taken back by an earlier one.
template <class Pattern, class Text, class IsStar, class Same>
bool matches(const Pattern& pattern, const Text& text, IsStar is_star, Same same) {
  size_t p = 0, t = 0, star = pattern.size(), taken = 0;
  while (t < text.size()) {
    if (p < pattern.size() && is_star(pattern[p], text[t])) {
      star = p++;
      taken = t;
    } else if (p < pattern.size() && same(pattern[p], text[t])) {
      ++p;
      ++t;
    } else if (star < pattern.size() && is_star(pattern[star], text[taken])) {
      p = star + 1;
      t = ++taken;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && is_star(pattern[p], typename Text::value_type())) ++p;
  return p == pattern.size();
}

bool matches_name(std::string_view pattern, std::string_view name) {
  if (name.starts_with('.') && !pattern.starts_with('.')) return false;
  return matches(
      pattern, name, [](char p, char) { return p == '*'; }, [](char p, char c) { return p == '?' || p == c; });
}

}  // namespace

bool is_pattern(std::string_view path) { return path.find_first_of("*?") != std::string_view::npos; }

SplitPattern split_pattern(std::string_view pattern) {
  SplitPattern split;
  for (const std::filesystem::path& part : std::filesystem::path(pattern).lexically_normal()) {
    if (split.names.empty() && !is_pattern(part.string()))
      split.folder /= part;
    else if (!part.empty())
      split.names.push_back(part.string());
  }
  if (split.folder.empty()) split.folder = ".";
  return split;
}

bool matches_pattern(const std::vector<std::string>& pattern, const std::vector<std::string>& names) {
  return matches(
      pattern, names,
      [](const std::string& p, const std::string& name) { return p == kFolders && !name.starts_with('.'); },
      matches_name);
}

}  // namespace coppice
