// Which encoding a page is in, and the page as UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace coppice {

/// The name that iconv knows for a label of the WHATWG Encoding Standard ("latin1" is CP1252 there), "UTF-8" for UTF-8,
/// nullptr for a label that the standard lacks or gives to an attack (ISO-2022-KR, HZ). Case and blanks do not matter.
const char* charset_of_label(std::string_view label);
/// What follows `charset=` in a Content-Type; empty where nothing does.
std::string_view charset_of_content_type(std::string_view content_type);
/// The charset that the first 4 kB of a page name, in a <meta> or an XML declaration; nullptr where none does.
/// UTF-16 stands for UTF-8 there: bytes in which the declaration can be read are not UTF-16.
const char* charset_of_markup(std::string_view bytes);

/// By a byte order mark, the HTTP header's label, the page's own; else UTF-8 where the bytes are valid, else CP1252.
/// One-byte encodings that are declared yield to bytes that are valid UTF-8 and not ASCII: such bytes come about by
/// chance hardly ever, a server's wrong default often.
const char* charset_of_page(std::string_view bytes, std::string_view content_type);

struct DecodedText {
  std::string text;       // valid UTF-8 without a byte order mark
  uint64_t replaced = 0;  // U+FFFD written for bytes that mean nothing
};

/// UserError::bad_file, naming the charset, where the system's iconv lacks it.
DecodedText decode_text(std::string_view bytes, const char* charset);

}  // namespace coppice
