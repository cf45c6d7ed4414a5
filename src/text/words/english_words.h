// A chunk between white space, cut into English words as spaCy 3.8 cuts it (facts about its rules: signs before and
// behind a word, signs within, exceptions). FineWeb's thresholds were chosen on such words. Private to src/text/words.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace coppice {

class EnglishWords {
 public:
  static const EnglishWords& rules();
  /// Where each word of the chunk ends; `ends` is overwritten. Time is linear in the chunk. Valid UTF-8, not empty, no
  /// white space, below 4 GB.
  void cut(std::string_view chunk, std::vector<uint32_t>& ends) const;
  /// False is certain: nothing is cut for this text as a whole but by the rules about signs.
  bool may_be_exception(std::string_view text) const;

 private:
  struct Exception {
    std::vector<uint32_t> ends;   // of its words
    std::vector<uint32_t> plain;  // what it is cut into without exceptions, where that is more than one word
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  EnglishWords();
  uint8_t flags(uint32_t code_point) const;
  const Exception* find_exception(std::string_view text) const;
  size_t prefix_bytes(std::string_view text) const;
  size_t suffix_bytes(std::string_view text) const;
  bool ends_with_stop(std::string_view text) const;
  size_t infix_bytes(std::string_view text, size_t at, uint32_t before) const;
  void cut_infixes(std::string_view text, size_t offset, std::vector<uint32_t>& ends) const;
  void cut_affixes(std::string_view chunk, bool with_exceptions, std::vector<uint32_t>& ends) const;
  void join_exceptions(std::string_view chunk, std::vector<uint32_t>& ends) const;
  bool is_address(std::string_view text) const;
  size_t host_bytes(std::string_view text) const;
  bool is_place(std::string_view text) const;

  std::bitset<65536> exception_hashes_;
  std::array<uint8_t, 0x20000> flags_;  // planes 0 and 1; behind them are ideographs
  std::unordered_map<std::string, Exception, Hash, std::equal_to<>> exceptions_;
  size_t longest_exception_ = 0, most_plain_ = 0;
};

}  // namespace coppice
