#include "src/text/text_encoding.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "src/text/file_endings.h"

namespace coppice {

namespace {

constexpr std::string_view kAnother = "another encoding";

/// Bytes of the well-formed UTF-8 character at the front (Unicode 15, table 3-7); 0 when there is none.
size_t well_formed_bytes(std::string_view bytes) {
  const auto at = [&](size_t i) { return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0; };
  const auto follows = [&](size_t i) { return (at(i) & 0xC0) == 0x80; };
  const int first = at(0), second = at(1);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F)) return 0;
    return follows(1) && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if ((first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) return 0;
    return follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

const char* wide_encoding(std::string_view bytes) {
  using namespace std::string_view_literals;
  if (bytes.starts_with("\xFF\xFE\0\0"sv)) return "UTF-32LE";
  if (bytes.starts_with("\0\0\xFE\xFF"sv)) return "UTF-32BE";
  if (bytes.starts_with("\xFF\xFE"sv)) return "UTF-16LE";
  if (bytes.starts_with("\xFE\xFF"sv)) return "UTF-16BE";
  constexpr size_t kLook = 4096;
  const size_t quads = std::min(bytes.size(), kLook) / 4;
  size_t zeros[4] = {};  // at places 0 to 3 of four bytes
  for (size_t i = 0; i < 4 * quads; ++i) zeros[i % 4] += bytes[i] == '\0';
  const auto mostly = [&](size_t place) { return zeros[place] * 2 > quads; };
  const auto hardly = [&](size_t place) { return zeros[place] * 20 <= quads; };
  if (quads == 0) return nullptr;
  if (hardly(0) && mostly(1) && mostly(2) && mostly(3)) return "UTF-32LE";
  if (mostly(0) && mostly(1) && mostly(2) && hardly(3)) return "UTF-32BE";
  if (hardly(0) && mostly(1) && hardly(2) && mostly(3)) return "UTF-16LE";
  if (mostly(0) && hardly(1) && mostly(2) && hardly(3)) return "UTF-16BE";
  return nullptr;
}

const char* narrow_encoding(std::string_view bytes) {
  size_t ascii = 0, valid = 0, invalid = 0;
  for (size_t i = 0; i < bytes.size();) {
    const size_t count = well_formed_bytes(bytes.substr(i));
    ascii += count == 1;
    valid += count > 1;
    invalid += count == 0;
    i += std::max<size_t>(count, 1);
  }
  if (valid >= invalid || bytes.find('\0') != std::string_view::npos) return nullptr;
  return ascii * 3 > bytes.size() * 2 ? "WINDOWS-1252" : kAnother.data();
}

std::string encoding_advice(const char* encoding, const std::filesystem::path& path) {
  if (kAnother == encoding)
    return "seems to be in an encoding of another script (GB18030, Shift_JIS, KOI8-R, ...); convert it to UTF-8 with "
           "iconv";
  const bool latin = std::strcmp(encoding, "WINDOWS-1252") == 0;
  const char* name = latin ? "Latin-1 or Windows-1252" : encoding;
  const std::string ending = path.extension().string();
  if (const FileEnding* known = ending_of(path); known != nullptr && known->coding != ByteSource::Coding::plain)
    return fmt::format("seems to be {}; unpack it, convert it with iconv -f {} -t UTF-8, and pack it again", name,
                       encoding);
  return fmt::format("seems to be {}; convert it: iconv -f {} -t UTF-8 -o '{}.utf8{}' '{}'", name, encoding,
                     path.stem().string(), ending, path.string());
}

size_t valid_utf8_bytes(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size();) {
    const size_t count = well_formed_bytes(bytes.substr(i));
    if (count == 0) return i;
    i += count;
  }
  return bytes.size();
}

size_t count_code_points(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace coppice
