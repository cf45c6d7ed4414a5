// Lists of words that a document should not be full of, found as whole words of the normal form: entries are one word
// or several. In scripts without blanks every character is a word, so that there an entry is found anywhere.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace coppice {

/// What was found in one text.
struct WordHits {
  uint64_t words = 0;     // of the text
  uint64_t covered = 0;   // of these, words that belong to an entry found
  uint64_t found = 0;     // entries found: at each place the longest that fits, the next one behind it
  uint64_t distinct = 0;  // different ones among them
  /// covered / words; 0 for a text without words.
  double rate() const;
};

/// Threads share it.
class WordList {
 public:
  /// A dozen English words of the pornography trade.
  static WordList built_in();
  /// Files of one entry a line; what follows a `#` is a comment. UserError::bad_file for a file that is no UTF-8, an
  /// entry that is nothing but signs, and files without an entry.
  static WordList read(const std::vector<std::filesystem::path>& files);
  /// Adds an entry (valid UTF-8); false for one without a word. One that is there already stays one.
  bool add(std::string_view entry);
  size_t size() const { return num_entries_; }

  /// What one thread reuses.
  struct Room {
    std::string normal;
    std::vector<uint64_t> words;      // hashes
    std::vector<uint32_t> last_text;  // by entry: the text in which it was found last
    uint32_t text = 0;
  };
  WordHits find(std::string_view text, Room& room) const;

 private:
  struct Entry {
    uint32_t number = 0;
    std::vector<uint64_t> others;  // hashes of the words behind the first
  };
  std::unordered_map<uint64_t, std::vector<Entry>> by_first_word_;  // the longest first
  uint32_t num_entries_ = 0;
};

}  // namespace coppice
