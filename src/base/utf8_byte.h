#pragma once

namespace coppice {

/// Is this byte inside a UTF-8 sequence, behind its first byte? Text may be cut before any other byte.
constexpr bool is_continuation_byte(char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80; }

}  // namespace coppice
