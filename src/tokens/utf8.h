// UTF-8 as byte-level tokenizers need it. Private to src/tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace coppice {

struct CodePoint {
  uint32_t value = 0;
  size_t bytes = 1;
};
/// The code point at `at` of valid UTF-8.
CodePoint code_point_at(std::string_view text, size_t at);
/// Where the code point that ends before `end` begins, in valid UTF-8.
size_t code_point_before(std::string_view text, size_t end);

bool is_valid_utf8(std::string_view text);
/// Each longest beginning of a character that is not finished, and each other bad byte, becomes one U+FFFD (the
/// Unicode standard, 3.9, "maximal subparts").
std::string with_replacements(std::string_view bytes);
/// Unicode normalisation form C of valid UTF-8.
std::string nfc(std::string_view text);
/// Could hold anything that nfc() changes; false is certain.
bool may_need_nfc(std::string_view text);

bool is_white_space(uint32_t code_point);
/// Letters, marks, decimal digits, letter numbers, connectors and joiners: a word character of regular expressions.
bool is_word_character(uint32_t code_point);

/// A token as GPT-2 spells it: one printable character for each byte (a space is U+0120).
std::string printable_bytes(std::string_view bytes);
/// The bytes behind that; false when some character is not of that alphabet.
bool read_printable_bytes(std::string_view token, std::string& bytes);

}  // namespace coppice
