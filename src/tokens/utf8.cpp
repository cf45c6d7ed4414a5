#include "src/tokens/utf8.h"

#include <simdjson.h>
#include <utf8proc.h>

#include <array>
#include <cstdlib>
#include <memory>

#include "src/base/errors.h"
#include "src/base/utf8_byte.h"

namespace coppice {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
constexpr uint32_t kBeyondBytes = 324;  // GPT-2's alphabet ends here: 256 + the 68 bytes that are not printable

/// Bytes of the character at `at`, or 0 and how many of them make sense.
size_t character_length(std::string_view bytes, size_t at, size_t& sensible) {
  const auto byte = [&](size_t i) { return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u; };
  const unsigned first = byte(at);
  sensible = 1;
  if (first < 0x80) return 1;
  const size_t length = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (length == 0) return 0;
  const unsigned low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const unsigned high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    const unsigned next = byte(at + i);
    if (next < (i == 1 ? low : 0x80u) || next > (i == 1 ? high : 0xBFu)) return 0;
    ++sensible;
  }
  return length;
}

constexpr bool is_printable_byte(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<uint32_t, 256> character{};
  std::array<int, kBeyondBytes> byte{};
  Alphabet() {
    byte.fill(-1);
    uint32_t next = 256;
    for (unsigned value = 0; value < 256; ++value) {
      character[value] = is_printable_byte(value) ? value : next++;
      byte[character[value]] = static_cast<int>(value);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

CodePoint code_point_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[at + i])); };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xE0) return {(first & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (first < 0xF0) return {(first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

size_t code_point_before(std::string_view text, size_t end) {
  do --end;
  while (is_continuation_byte(text[end]));
  return end;
}

bool is_valid_utf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

std::string with_replacements(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() + 8);
  for (size_t at = 0; at < bytes.size();) {
    size_t sensible = 0;
    const size_t length = character_length(bytes, at, sensible);
    text += length == 0 ? kReplacement : bytes.substr(at, length);
    at += length == 0 ? sensible : length;
  }
  return text;
}

bool may_need_nfc(std::string_view text) {  // below U+0300 nothing composes or decomposes canonically in NFC
  for (const char c : text)
    if (static_cast<unsigned char>(c) >= 0xCC) return true;
  return false;
}

std::string nfc(std::string_view text) {
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &result, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  COPPICE_CHECK(size >= 0, utf8proc_errmsg(size));
  return {reinterpret_cast<const char*>(result), static_cast<size_t>(size)};
}

bool is_white_space(uint32_t point) {
  return (point >= 0x9 && point <= 0xD) || point == 0x20 || point == 0x85 || point == 0xA0 || point == 0x1680 ||
         (point >= 0x2000 && point <= 0x200A) || point == 0x2028 || point == 0x2029 || point == 0x202F ||
         point == 0x205F || point == 0x3000;
}

bool is_word_character(uint32_t point) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return point == 0x200C || point == 0x200D;
  }
}

std::string printable_bytes(std::string_view bytes) {
  std::string token;
  for (const char c : bytes) {
    const uint32_t point = alphabet().character[static_cast<unsigned char>(c)];
    if (point < 0x80) {
      token += static_cast<char>(point);
    } else {
      token += static_cast<char>(0xC0 | point >> 6);
      token += static_cast<char>(0x80 | (point & 0x3F));
    }
  }
  return token;
}

bool read_printable_bytes(std::string_view token, std::string& bytes) {
  bytes.clear();
  for (size_t at = 0; at < token.size();) {
    const CodePoint point = code_point_at(token, at);
    const int byte = point.value < kBeyondBytes ? alphabet().byte[point.value] : -1;
    if (byte < 0) return false;
    bytes += static_cast<char>(byte);
    at += point.bytes;
  }
  return true;
}

}  // namespace coppice
