#include "src/corpus/code/licence_text.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>

#include "src/text/words/normal_form.h"

namespace coppice {
namespace {

struct LicencePrint {
  const char* id;
  int shift;  // of the hashes only those are kept whose low bits, as many, are zero
  std::vector<uint32_t> pairs;
};

const std::vector<LicencePrint>& prints() {
  static const std::vector<LicencePrint> rows = {
#include "src/corpus/code/licence_prints.inc"
  };
  return rows;
}

/// A line that says whose copyright it is, rather than speaking of copyright.
bool is_copyright_line(std::string_view line) {
  static constexpr std::string_view kOthers[] = {"notice",   "notices", "holder",  "holders", "owner", "owners",
                                                 "law",      "laws",    "license", "licence", "and",   "or",
                                                 "interest", "in",      "is",      "to"};
  std::string text(line.substr(0, 200));
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  line = text;
  line.remove_prefix(std::min(line.find_first_not_of(" \t*#/;-"), line.size()));
  if (line.starts_with("(c)") || line.starts_with("\u00A9") || line.starts_with("all rights reserved")) return true;
  if (!line.starts_with("copyright")) return false;
  line.remove_prefix(std::string_view("copyright").size());
  const auto is_letter = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto begin = std::ranges::find_if(line, is_letter);
  const auto end = std::find_if_not(begin, line.end(), is_letter);
  return std::ranges::find(kOthers, std::string_view(begin, end)) == std::end(kOthers);
}

uint32_t fnv1a(std::string_view bytes) {
  uint32_t hash = 0x811C9DC5;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193;
  return hash;
}

/// The line without the number or letter of a list item at its start: `1.`, `(b)`, also behind the signs of a comment.
std::string_view without_list_mark(std::string_view line) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  size_t i = std::min(line.find_first_not_of(" \t*#/;-"), line.size());
  if (i < line.size() && line[i] == '(') ++i;
  const size_t begin = i;
  while (i < line.size() && i < begin + 2 && is_digit(line[i])) ++i;
  if (i == begin && i < line.size() && std::isalpha(static_cast<unsigned char>(line[i]))) ++i;
  if (i == begin || i + 1 >= line.size() || (line[i] != '.' && line[i] != ')')) return line;
  const size_t rest = line.find_first_not_of(" \t", i + 1);
  return rest == i + 1 ? line : line.substr(std::min(rest, line.size()));
}

/// What the lines that do not say whose copyright it is hold, in normal form.
std::string comparable(std::string_view text) {
  std::string kept, normal;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    if (!is_copyright_line(line)) kept.append(without_list_mark(line)).push_back('\n');
    begin = end + 1;
  }
  normal_form(kept, normal);
  return normal;
}

/// Of each two words, in their order.
std::vector<uint32_t> pair_hashes(const std::vector<std::string_view>& words) {
  std::vector<uint32_t> hashes;
  for (size_t i = 1; i < words.size(); ++i)  // one blank lies between two words
    hashes.push_back(fnv1a({words[i - 1].data(), words[i].data() + words[i].size()}));
  return hashes;
}

double dice(const std::vector<uint32_t>& pairs, const LicencePrint& print) {
  const uint32_t mask = (1u << print.shift) - 1;
  size_t size = 0, shared = 0;
  auto other = print.pairs.begin();
  for (const uint32_t hash : pairs) {
    if ((hash & mask) != 0) continue;
    ++size;
    while (other != print.pairs.end() && *other < hash) ++other;
    if (other != print.pairs.end() && *other == hash) ++shared;
  }
  return 2.0 * static_cast<double>(shared) / static_cast<double>(size + print.pairs.size());
}

/// Of licences all of whose pairs are stored; the others are known by name alone.
bool has_additions(const std::vector<std::string_view>& words, const std::vector<uint32_t>& pairs,
                   const LicencePrint& print) {
  static constexpr std::string_view kRestricting[] = {"commercial", "commercially", "noncommercial", "nonprofit",
                                                      "academic",   "research",     "educational",   "evaluation",
                                                      "military",   "evil",         "competing",     "prohibited"};
  constexpr int kMostInARow = 12;
  if (print.shift > 0) return false;
  int in_a_row = 0;
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (std::ranges::binary_search(print.pairs, pairs[i])) {
      in_a_row = 0;
    } else if (++in_a_row > kMostInARow || std::ranges::find(kRestricting, words[i]) != std::end(kRestricting) ||
               std::ranges::find(kRestricting, words[i + 1]) != std::end(kRestricting)) {
      return true;
    }
  }
  return false;
}

}  // namespace

LicenceMatch match_licence_text(std::string_view text) {
  const std::string normal = comparable(text);
  std::vector<std::string_view> words;
  split_normal_form(normal, words);
  const std::vector<uint32_t> in_order = pair_hashes(words);
  std::vector<uint32_t> pairs = in_order;
  std::ranges::sort(pairs);
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  LicenceMatch best;
  const LicencePrint* best_print = nullptr;
  for (const LicencePrint& print : prints())
    if (const double value = dice(pairs, print); value > best.dice) {
      best = {print.id, value};
      best_print = &print;
    }
  if (best_print != nullptr) best.has_additions = has_additions(words, in_order, *best_print);
  return best;
}

std::vector<std::string> known_licences() {
  std::vector<std::string> ids;
  for (const LicencePrint& print : prints())
    if (ids.empty() || ids.back() != print.id) ids.emplace_back(print.id);
  return ids;
}

std::string find_spdx_line(std::string_view text) {
  static constexpr std::string_view kMark = "SPDX-License-Identifier:";
  text = text.substr(0, 4096);
  const size_t at = text.find(kMark);
  if (at == std::string_view::npos) return {};
  std::string_view line = text.substr(at + kMark.size());
  line = line.substr(0, line.find_first_of("\r\n"));
  for (const std::string_view close : {"*/", "-->", "\"", "'", "#}", "--}}"}) line = line.substr(0, line.find(close));
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  return std::string(line.substr(0, line.find_last_not_of(" \t") + 1));
}

}  // namespace coppice
