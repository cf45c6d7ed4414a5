// Valid UTF-8, code point by code point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "src/base/utf8_byte.h"

namespace coppice {

/// The code point at `at`, which moves behind it.
inline uint32_t next_code_point(const char*& at) {
  const auto byte = [&](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(at[i])); };
  const uint32_t first = byte(0);
  if (first < 0x80) return ++at, first;
  if (first < 0xE0) return at += 2, (first & 0x1F) << 6 | (byte(-1) & 0x3F);
  if (first < 0xF0) return at += 3, (first & 0x0F) << 12 | (byte(-2) & 0x3F) << 6 | (byte(-1) & 0x3F);
  return at += 4, (first & 0x07) << 18 | (byte(-3) & 0x3F) << 12 | (byte(-2) & 0x3F) << 6 | (byte(-1) & 0x3F);
}

/// The code point that ends before `at`, which moves to its begin.
inline uint32_t previous_code_point(const char*& at) {
  do --at;
  while (is_continuation_byte(*at));
  const char* begin = at;
  return next_code_point(begin);
}

/// Writes a code point (4 bytes at most); behind it.
inline char* write_code_point(uint32_t value, char* out) {
  const auto put = [&](uint32_t byte) { *out++ = static_cast<char>(byte); };
  if (value < 0x80) {
    put(value);
  } else if (value < 0x800) {
    put(0xC0 | value >> 6), put(0x80 | (value & 0x3F));
  } else if (value < 0x10000) {
    put(0xE0 | value >> 12), put(0x80 | (value >> 6 & 0x3F)), put(0x80 | (value & 0x3F));
  } else {
    put(0xF0 | value >> 18), put(0x80 | (value >> 12 & 0x3F)), put(0x80 | (value >> 6 & 0x3F)),
        put(0x80 | (value & 0x3F));
  }
  return out;
}

/// How many there are.
inline size_t num_code_points(std::string_view text) {
  size_t count = 0;
  for (const char byte : text) count += static_cast<signed char>(byte) > static_cast<signed char>(0xBF);
  return count;
}

}  // namespace coppice
