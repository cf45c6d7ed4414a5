#pragma once

#include <cstddef>
#include <string_view>

namespace coppice {

/// Is this byte inside a UTF-8 sequence, behind its first byte? Text may be cut before any other byte.
constexpr bool is_continuation_byte(char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80; }

/// The beginning of a text: at most so many bytes, whole characters.
constexpr std::string_view first_bytes(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && is_continuation_byte(text[bytes])) --bytes;
  return text.substr(0, bytes);
}

}  // namespace coppice
