#include "src/text/charset.h"

#include <fmt/format.h>
#include <iconv.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "src/base/errors.h"
#include "src/text/ascii_case.h"
#include "src/text/byte_source.h"
#include "src/text/tag_scanner.h"
#include "src/text/text_encoding.h"

namespace coppice {

namespace {

constexpr const char* kUtf8 = "UTF-8";
constexpr const char* kWestern = "CP1252";
constexpr size_t kLook = 4096;  // bytes of a page in which its charset is looked for: the standard says 1,024
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Label {
  std::string_view label;
  const char* charset;
};

/// https://encoding.spec.whatwg.org/#names-and-labels, sorted, without the labels of "replacement". x-user-defined is
/// what it is in a <meta>, and the two directions of Hebrew are one.
constexpr std::array<Label, 222> kLabels = {{
    {"866", "CP866"},
    {"ansi_x3.4-1968", "CP1252"},
    {"arabic", "ISO-8859-6"},
    {"ascii", "CP1252"},
    {"asmo-708", "ISO-8859-6"},
    {"big5", "BIG5-HKSCS"},
    {"big5-hkscs", "BIG5-HKSCS"},
    {"chinese", "GB18030"},
    {"cn-big5", "BIG5-HKSCS"},
    {"cp1250", "CP1250"},
    {"cp1251", "CP1251"},
    {"cp1252", "CP1252"},
    {"cp1253", "CP1253"},
    {"cp1254", "CP1254"},
    {"cp1255", "CP1255"},
    {"cp1256", "CP1256"},
    {"cp1257", "CP1257"},
    {"cp1258", "CP1258"},
    {"cp819", "CP1252"},
    {"cp866", "CP866"},
    {"csbig5", "BIG5-HKSCS"},
    {"cseuckr", "UHC"},
    {"cseucpkdfmtjapanese", "EUC-JP-MS"},
    {"csgb2312", "GB18030"},
    {"csibm866", "CP866"},
    {"csiso2022jp", "ISO-2022-JP"},
    {"csiso58gb231280", "GB18030"},
    {"csiso88596e", "ISO-8859-6"},
    {"csiso88596i", "ISO-8859-6"},
    {"csiso88598e", "ISO-8859-8"},
    {"csiso88598i", "ISO-8859-8"},
    {"csisolatin1", "CP1252"},
    {"csisolatin2", "ISO-8859-2"},
    {"csisolatin3", "ISO-8859-3"},
    {"csisolatin4", "ISO-8859-4"},
    {"csisolatin5", "CP1254"},
    {"csisolatin6", "ISO-8859-10"},
    {"csisolatin9", "ISO-8859-15"},
    {"csisolatinarabic", "ISO-8859-6"},
    {"csisolatincyrillic", "ISO-8859-5"},
    {"csisolatingreek", "ISO-8859-7"},
    {"csisolatinhebrew", "ISO-8859-8"},
    {"cskoi8r", "KOI8-R"},
    {"csksc56011987", "UHC"},
    {"csmacintosh", "MACINTOSH"},
    {"csshiftjis", "CP932"},
    {"csunicode", "UTF-16LE"},
    {"cyrillic", "ISO-8859-5"},
    {"dos-874", "CP874"},
    {"ecma-114", "ISO-8859-6"},
    {"ecma-118", "ISO-8859-7"},
    {"elot_928", "ISO-8859-7"},
    {"euc-jp", "EUC-JP-MS"},
    {"euc-kr", "UHC"},
    {"gb18030", "GB18030"},
    {"gb2312", "GB18030"},
    {"gb_2312", "GB18030"},
    {"gb_2312-80", "GB18030"},
    {"gbk", "GB18030"},
    {"greek", "ISO-8859-7"},
    {"greek8", "ISO-8859-7"},
    {"hebrew", "ISO-8859-8"},
    {"ibm819", "CP1252"},
    {"ibm866", "CP866"},
    {"iso-10646-ucs-2", "UTF-16LE"},
    {"iso-2022-jp", "ISO-2022-JP"},
    {"iso-8859-1", "CP1252"},
    {"iso-8859-10", "ISO-8859-10"},
    {"iso-8859-11", "CP874"},
    {"iso-8859-13", "ISO-8859-13"},
    {"iso-8859-14", "ISO-8859-14"},
    {"iso-8859-15", "ISO-8859-15"},
    {"iso-8859-16", "ISO-8859-16"},
    {"iso-8859-2", "ISO-8859-2"},
    {"iso-8859-3", "ISO-8859-3"},
    {"iso-8859-4", "ISO-8859-4"},
    {"iso-8859-5", "ISO-8859-5"},
    {"iso-8859-6", "ISO-8859-6"},
    {"iso-8859-6-e", "ISO-8859-6"},
    {"iso-8859-6-i", "ISO-8859-6"},
    {"iso-8859-7", "ISO-8859-7"},
    {"iso-8859-8", "ISO-8859-8"},
    {"iso-8859-8-e", "ISO-8859-8"},
    {"iso-8859-8-i", "ISO-8859-8"},
    {"iso-8859-9", "CP1254"},
    {"iso-ir-100", "CP1252"},
    {"iso-ir-101", "ISO-8859-2"},
    {"iso-ir-109", "ISO-8859-3"},
    {"iso-ir-110", "ISO-8859-4"},
    {"iso-ir-126", "ISO-8859-7"},
    {"iso-ir-127", "ISO-8859-6"},
    {"iso-ir-138", "ISO-8859-8"},
    {"iso-ir-144", "ISO-8859-5"},
    {"iso-ir-148", "CP1254"},
    {"iso-ir-149", "UHC"},
    {"iso-ir-157", "ISO-8859-10"},
    {"iso-ir-58", "GB18030"},
    {"iso8859-1", "CP1252"},
    {"iso8859-10", "ISO-8859-10"},
    {"iso8859-11", "CP874"},
    {"iso8859-13", "ISO-8859-13"},
    {"iso8859-14", "ISO-8859-14"},
    {"iso8859-15", "ISO-8859-15"},
    {"iso8859-2", "ISO-8859-2"},
    {"iso8859-3", "ISO-8859-3"},
    {"iso8859-4", "ISO-8859-4"},
    {"iso8859-5", "ISO-8859-5"},
    {"iso8859-6", "ISO-8859-6"},
    {"iso8859-7", "ISO-8859-7"},
    {"iso8859-8", "ISO-8859-8"},
    {"iso8859-9", "CP1254"},
    {"iso88591", "CP1252"},
    {"iso885910", "ISO-8859-10"},
    {"iso885911", "CP874"},
    {"iso885913", "ISO-8859-13"},
    {"iso885914", "ISO-8859-14"},
    {"iso885915", "ISO-8859-15"},
    {"iso88592", "ISO-8859-2"},
    {"iso88593", "ISO-8859-3"},
    {"iso88594", "ISO-8859-4"},
    {"iso88595", "ISO-8859-5"},
    {"iso88596", "ISO-8859-6"},
    {"iso88597", "ISO-8859-7"},
    {"iso88598", "ISO-8859-8"},
    {"iso88599", "CP1254"},
    {"iso_8859-1", "CP1252"},
    {"iso_8859-15", "ISO-8859-15"},
    {"iso_8859-1:1987", "CP1252"},
    {"iso_8859-2", "ISO-8859-2"},
    {"iso_8859-2:1987", "ISO-8859-2"},
    {"iso_8859-3", "ISO-8859-3"},
    {"iso_8859-3:1988", "ISO-8859-3"},
    {"iso_8859-4", "ISO-8859-4"},
    {"iso_8859-4:1988", "ISO-8859-4"},
    {"iso_8859-5", "ISO-8859-5"},
    {"iso_8859-5:1988", "ISO-8859-5"},
    {"iso_8859-6", "ISO-8859-6"},
    {"iso_8859-6:1987", "ISO-8859-6"},
    {"iso_8859-7", "ISO-8859-7"},
    {"iso_8859-7:1987", "ISO-8859-7"},
    {"iso_8859-8", "ISO-8859-8"},
    {"iso_8859-8:1988", "ISO-8859-8"},
    {"iso_8859-9", "CP1254"},
    {"iso_8859-9:1989", "CP1254"},
    {"koi", "KOI8-R"},
    {"koi8", "KOI8-R"},
    {"koi8-r", "KOI8-R"},
    {"koi8-ru", "KOI8-U"},
    {"koi8-u", "KOI8-U"},
    {"koi8_r", "KOI8-R"},
    {"korean", "UHC"},
    {"ks_c_5601-1987", "UHC"},
    {"ks_c_5601-1989", "UHC"},
    {"ksc5601", "UHC"},
    {"ksc_5601", "UHC"},
    {"l1", "CP1252"},
    {"l2", "ISO-8859-2"},
    {"l3", "ISO-8859-3"},
    {"l4", "ISO-8859-4"},
    {"l5", "CP1254"},
    {"l6", "ISO-8859-10"},
    {"l9", "ISO-8859-15"},
    {"latin1", "CP1252"},
    {"latin2", "ISO-8859-2"},
    {"latin3", "ISO-8859-3"},
    {"latin4", "ISO-8859-4"},
    {"latin5", "CP1254"},
    {"latin6", "ISO-8859-10"},
    {"logical", "ISO-8859-8"},
    {"mac", "MACINTOSH"},
    {"macintosh", "MACINTOSH"},
    {"ms932", "CP932"},
    {"ms_kanji", "CP932"},
    {"shift-jis", "CP932"},
    {"shift_jis", "CP932"},
    {"sjis", "CP932"},
    {"sun_eu_greek", "ISO-8859-7"},
    {"tis-620", "CP874"},
    {"ucs-2", "UTF-16LE"},
    {"unicode", "UTF-16LE"},
    {"unicode-1-1-utf-8", "UTF-8"},
    {"unicode11utf8", "UTF-8"},
    {"unicode20utf8", "UTF-8"},
    {"unicodefeff", "UTF-16LE"},
    {"unicodefffe", "UTF-16BE"},
    {"us-ascii", "CP1252"},
    {"utf-16", "UTF-16LE"},
    {"utf-16be", "UTF-16BE"},
    {"utf-16le", "UTF-16LE"},
    {"utf-8", "UTF-8"},
    {"utf8", "UTF-8"},
    {"visual", "ISO-8859-8"},
    {"windows-1250", "CP1250"},
    {"windows-1251", "CP1251"},
    {"windows-1252", "CP1252"},
    {"windows-1253", "CP1253"},
    {"windows-1254", "CP1254"},
    {"windows-1255", "CP1255"},
    {"windows-1256", "CP1256"},
    {"windows-1257", "CP1257"},
    {"windows-1258", "CP1258"},
    {"windows-31j", "CP932"},
    {"windows-874", "CP874"},
    {"windows-949", "UHC"},
    {"x-cp1250", "CP1250"},
    {"x-cp1251", "CP1251"},
    {"x-cp1252", "CP1252"},
    {"x-cp1253", "CP1253"},
    {"x-cp1254", "CP1254"},
    {"x-cp1255", "CP1255"},
    {"x-cp1256", "CP1256"},
    {"x-cp1257", "CP1257"},
    {"x-cp1258", "CP1258"},
    {"x-euc-jp", "EUC-JP-MS"},
    {"x-gbk", "GB18030"},
    {"x-mac-cyrillic", "MAC-CYRILLIC"},
    {"x-mac-roman", "MACINTOSH"},
    {"x-mac-ukrainian", "MAC-CYRILLIC"},
    {"x-sjis", "CP932"},
    {"x-unicode20utf8", "UTF-8"},
    {"x-user-defined", "CP1252"},
    {"x-x-big5", "BIG5-HKSCS"},
}};

bool is_utf16(std::string_view charset) { return charset.starts_with("UTF-16"); }

/// One byte a character: Cyrillic and Western code pages alike.
bool is_one_byte(std::string_view charset) {
  constexpr std::array<std::string_view, 7> kOthers = {"UTF-",  "GB18030", "BIG5-HKSCS", "EUC-JP-MS",
                                                       "CP932", "UHC",     "ISO-2022-JP"};
  return std::ranges::none_of(kOthers, [&](std::string_view other) { return charset.starts_with(other); });
}

/// Bytes of the longest beginning of a UTF-8 character, at least one: what U+FFFD stands for (Unicode 15, 3.9).
size_t damaged_character(std::string_view bytes) {
  const auto at = [&](size_t i) { return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0; };
  const int first = at(0), second = at(1);
  if (first < 0xE0 || first > 0xF4) return 1;
  const int least = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const int most = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (second < least || second > most) return 1;
  return first >= 0xF0 && (at(2) & 0xC0) == 0x80 ? 3 : 2;
}

DecodedText repaired(std::string_view bytes) {
  DecodedText decoded;
  while (!bytes.empty()) {
    const size_t valid = valid_utf8_bytes(bytes);
    decoded.text.append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    decoded.text.append(kReplacement);
    ++decoded.replaced;
    bytes.remove_prefix(std::min(damaged_character(bytes), bytes.size()));
  }
  return decoded;
}

DecodedText through_iconv(std::string_view bytes, const char* charset) {
  iconv_t converter = iconv_open(kUtf8, charset);
  if (converter == reinterpret_cast<iconv_t>(-1))
    throw UserError::bad_file(charset, "is an encoding that the iconv of this system lacks; install its gconv modules");
  DecodedText decoded;
  std::array<char, 1 << 16> block;
  char* in = const_cast<char*>(bytes.data());
  size_t left = bytes.size();
  for (bool is_flushed = false; !is_flushed;) {
    char* out = block.data();
    size_t space = block.size();
    is_flushed = left == 0;  // the last call lets a stateful decoder give what it holds
    const size_t result =
        is_flushed ? iconv(converter, nullptr, nullptr, &out, &space) : iconv(converter, &in, &left, &out, &space);
    const int reason = errno;
    decoded.text.append(block.data(), block.size() - space);
    if (is_flushed || result != static_cast<size_t>(-1) || reason == E2BIG) continue;
    decoded.text.append(kReplacement);
    ++decoded.replaced;
    const size_t skipped = std::min<size_t>(reason == EINVAL ? left : is_utf16(charset) ? 2 : 1, left);  // cut: the end
    in += skipped;
    left -= skipped;
  }
  iconv_close(converter);
  return decoded;
}

}  // namespace

const char* charset_of_label(std::string_view label) {
  const std::string name = lower_ascii(trimmed_ascii(label));
  const auto found = std::ranges::lower_bound(kLabels, std::string_view(name), {}, &Label::label);
  return found != kLabels.end() && found->label == name ? found->charset : nullptr;
}

std::string_view charset_of_content_type(std::string_view content_type) {
  constexpr std::string_view kName = "charset";
  for (size_t at = 0; at + kName.size() < content_type.size(); ++at) {
    if (!starts_ignoring_case(content_type.substr(at), kName)) continue;
    std::string_view value = trimmed_ascii(content_type.substr(at + kName.size()));
    if (!value.starts_with('=')) continue;
    value = trimmed_ascii(value.substr(1));
    if (value.starts_with('"') || value.starts_with('\'')) return value.substr(1, value.find(value[0], 1) - 1);
    return value.substr(0, value.find_first_of(" \t\r\n\f;,"));
  }
  return {};
}

const char* charset_of_markup(std::string_view bytes) {
  bytes = bytes.substr(0, kLook);
  const auto named = [](std::string_view label) {
    const char* charset = charset_of_label(label);
    return charset != nullptr && is_utf16(charset) ? kUtf8 : charset;
  };
  if (starts_ignoring_case(bytes, "<?xml")) {
    const std::string_view declaration = bytes.substr(0, bytes.find('>'));
    const size_t name = declaration.find("encoding");
    const size_t quote = declaration.find_first_of("\"'", std::min(name, declaration.size()));
    if (quote != std::string_view::npos)
      if (const char* charset =
              named(declaration.substr(quote + 1, declaration.find(declaration[quote], quote + 1) - quote - 1)))
        return charset;
  }
  TagScanner tags(bytes);
  for (MarkupTag tag; tags.next(tag);) {
    if (!tag.is("meta")) continue;
    std::optional<std::string_view> label = tag.find("charset");
    if (!label && equals_ignoring_case(trimmed_ascii(tag.find("http-equiv").value_or("")), "content-type"))
      label = charset_of_content_type(tag.find("content").value_or(""));
    if (label)
      if (const char* charset = named(*label)) return charset;
  }
  return nullptr;
}

const char* charset_of_page(std::string_view bytes, std::string_view content_type) {
  if (bytes.starts_with(kByteOrderMark)) return kUtf8;
  if (bytes.starts_with("\xFF\xFE")) return "UTF-16LE";
  if (bytes.starts_with("\xFE\xFF")) return "UTF-16BE";
  const char* declared = charset_of_label(charset_of_content_type(content_type));
  if (declared == nullptr) declared = charset_of_markup(bytes);
  if (declared != nullptr && !is_one_byte(declared)) return declared;
  if (simdjson::validate_utf8(bytes.data(), bytes.size())) return kUtf8;
  return declared != nullptr ? declared : kWestern;
}

DecodedText decode_text(std::string_view bytes, const char* charset) {
  if (bytes.starts_with(kByteOrderMark)) bytes.remove_prefix(kByteOrderMark.size());
  DecodedText decoded;
  if (std::string_view(charset) != kUtf8) {
    decoded = through_iconv(bytes, charset);
    if (decoded.text.starts_with(kByteOrderMark)) decoded.text.erase(0, kByteOrderMark.size());
  } else if (simdjson::validate_utf8(bytes.data(), bytes.size())) {
    decoded.text = bytes;
  } else {
    decoded = repaired(bytes);
  }
  return decoded;
}

}  // namespace coppice
