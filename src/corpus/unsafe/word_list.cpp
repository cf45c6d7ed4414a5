#include "src/corpus/unsafe/word_list.h"

#include <fmt/format.h>
#include <simdjson.h>
#include <xxhash.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/text/words/characters.h"
#include "src/text/words/code_points.h"
#include "src/text/words/normal_form.h"

namespace coppice {
namespace {

constexpr const char* kBuiltIn[] = {"porn",   "porno",    "pornography", "xxx",     "milf",    "blowjob",
                                    "hentai", "gangbang", "cumshot",     "camgirl", "handjob", "creampie"};

/// Hashes of the words of a normal form: what lies between blanks, and each character of a script without blanks.
void hash_words(std::string_view normal, std::vector<uint64_t>& hashes) {
  const CharacterFlags& flags = CharacterFlags::table();
  hashes.clear();
  const char* const end = normal.data() + normal.size();
  const char* word = normal.data();  // begin of the one that is being read
  const auto close = [&](const char* behind) {
    if (behind > word) hashes.push_back(XXH3_64bits(word, static_cast<size_t>(behind - word)));
  };
  for (const char* at = word; at < end;) {
    const char* const begin = at;
    const uint32_t code_point = next_code_point(at);
    const bool is_word = code_point > 0x7F && (flags[code_point] & character::kUnspaced) != 0;
    if (code_point != ' ' && !is_word) continue;
    close(begin);
    word = begin;
    if (is_word) close(at);
    word = at;
  }
  close(end);
}

}  // namespace

double WordHits::rate() const { return words == 0 ? 0 : static_cast<double>(covered) / static_cast<double>(words); }

WordList WordList::built_in() {
  WordList list;
  for (const char* entry : kBuiltIn) list.add(entry);
  return list;
}

WordList WordList::read(const std::vector<std::filesystem::path>& files) {
  WordList list;
  for (const std::filesystem::path& path : files) {
    const std::string text = read_file(path, uint64_t{64} << 20);
    if (!simdjson::validate_utf8(text))
      throw UserError::bad_file(path.native(), "is not valid UTF-8; convert it: iconv -f WINDOWS-1252 -t UTF-8 ...");
    uint64_t line_number = 0;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      std::string_view line = std::string_view(text).substr(begin, end - begin);
      begin = end + 1;
      ++line_number;
      if (line_number == 1 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
      line = line.substr(0, line.find('#'));
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      if (!list.add(line))
        throw UserError::bad_file(fmt::format("{}:{}", path.native(), line_number),
                                  fmt::format("'{}' has no word in it; remove the line", printable(line)));
    }
  }
  if (list.size() == 0)
    throw UserError::bad_file(files.front().native(), "no entries; expected a word, or several, a line");
  return list;
}

bool WordList::add(std::string_view text) {
  std::string normal;
  normal_form(text, normal);
  std::vector<uint64_t> words;
  hash_words(normal, words);
  if (words.empty()) return false;
  std::vector<Entry>& entries = by_first_word_[words.front()];
  const std::vector<uint64_t> others(words.begin() + 1, words.end());
  if (std::ranges::find(entries, others, &Entry::others) != entries.end()) return true;
  const auto shorter =
      std::ranges::find_if(entries, [&](const Entry& entry) { return entry.others.size() < others.size(); });
  entries.insert(shorter, {num_entries_++, others});
  return true;
}

WordHits WordList::find(std::string_view text, Room& room) const {
  normal_form(text, room.normal);
  hash_words(room.normal, room.words);
  room.last_text.resize(num_entries_, 0);
  if (++room.text == 0) {  // all numbers are used up
    std::ranges::fill(room.last_text, 0);
    room.text = 1;
  }
  const std::vector<uint64_t>& words = room.words;
  WordHits hits{.words = words.size()};
  for (size_t at = 0; at < words.size();) {
    size_t length = 0;
    if (const auto found = by_first_word_.find(words[at]); found != by_first_word_.end()) {
      for (const Entry& entry : found->second) {
        const size_t behind = words.size() - at - 1;
        if (entry.others.size() > behind ||
            !std::equal(entry.others.begin(), entry.others.end(), words.begin() + static_cast<std::ptrdiff_t>(at) + 1))
          continue;
        length = 1 + entry.others.size();
        hits.distinct += room.last_text[entry.number] != room.text;
        room.last_text[entry.number] = room.text;
        break;
      }
    }
    hits.found += length > 0;
    hits.covered += length;
    at += std::max<size_t>(length, 1);
  }
  return hits;
}

}  // namespace coppice
