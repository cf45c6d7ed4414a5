// Marks of mathematics: strings in a page's markup and symbols in its text (OpenWebMath, arXiv 2310.06786, filters by
// the former first).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace coppice {

/// The built-in lists: 40 strings and 350 symbols, an entry a line.
extern const std::string_view kMathsTemplates, kMathsSymbols;

/// Lines that are not empty; blanks belong to an entry, a CR at the end does not.
std::vector<std::string> list_entries(std::string_view text);

/// Finds many strings in one pass (Aho and Corasick 1975), byte by byte.
class StringFinder {
 public:
  /// UserError::bad_file at `where` for no string and for more than 65,535 bytes of them.
  StringFinder(const std::vector<std::string>& strings, const std::string& where);
  /// Numbers of the strings that occur, ascending.
  std::vector<uint32_t> find(std::string_view text) const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct State {
    uint32_t string = kNone;  // that ends here
    uint16_t shorter = 0;     // the state of the longest string that also ends here; 0 = none
  };
  uint32_t num_strings_;
  std::vector<State> states_;
  uint16_t classes_[256] = {};  // of bytes; 0 = in no string
  uint16_t num_classes_ = 1;
  std::vector<uint16_t> next_;  // [state][class]
};

/// Counts symbols: `\name`, which ends where no ASCII letter follows, and single characters.
class SymbolCounter {
 public:
  /// UserError::bad_file at `where` for no entry and for one that is neither.
  SymbolCounter(const std::vector<std::string>& symbols, const std::string& where);
  /// Of valid UTF-8.
  uint64_t count(std::string_view text) const;

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::unordered_set<std::string, Hash, std::equal_to<>> names_;
  size_t longest_name_ = 0;
  std::vector<bool> signs_;  // by code point
};

}  // namespace coppice
