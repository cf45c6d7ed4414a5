// What bytes are that should be UTF-8 and are not: named, so that a file can be converted instead of being thrown away
// line by line.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace coppice {

/// "UTF-16LE", "UTF-16BE", "UTF-32LE" or "UTF-32BE" by a byte order mark or by where the first bytes are zero; nullptr
/// otherwise. Such bytes may be valid UTF-8.
const char* wide_encoding(std::string_view bytes);
/// "WINDOWS-1252" (Latin-1 is a part of it) for mostly ASCII bytes that are no UTF-8 anywhere, "another encoding" for
/// mostly other bytes, nullptr for damaged UTF-8. Of bytes that are not valid UTF-8.
const char* narrow_encoding(std::string_view bytes);
/// `seems to be Latin-1 or Windows-1252; convert it: iconv -f WINDOWS-1252 -t UTF-8 ...`.
std::string encoding_advice(const char* encoding, const std::filesystem::path& path);

/// Byte at which valid UTF-8 ends.
size_t valid_utf8_bytes(std::string_view bytes);

/// Of valid UTF-8; elsewhere bytes that begin one.
size_t count_code_points(std::string_view text);

}  // namespace coppice
