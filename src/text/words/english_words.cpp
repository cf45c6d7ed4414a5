#include "src/text/words/english_words.h"

#include <utf8proc.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <string_view>

#include "src/text/words/code_points.h"
#include "src/text/words/english_exceptions.h"

namespace coppice {
namespace {

// What a code point is to the rules.
constexpr uint8_t kPrefix = 1, kSuffix = 2;             // taken off the begin, off the end
constexpr uint8_t kLower = 4, kUpper = 8, kAlpha = 16;  // letters without case are both
constexpr uint8_t kQuote = 32, kSymbol = 64;
constexpr uint8_t kBeforeStop = 128;  // a full stop behind it is a word of its own

constexpr std::u32string_view kSigns =
    U"\u2026,:;!?\u00bf\u061f\u00a1()[]{}<>_#*&\u3002\uff1f\uff01\uff0c\u3001\uff1b\uff1a\uff5e\u00b7\u0964\u060c\u06d4"
    U"\u061b\u066a";
constexpr std::u32string_view kQuotes =
    U"'\"\u201d\u201c`\u2018\u00b4\u2019\u201a,\u201e\u00bb\u00ab\u300c\u300d\u300e\u300f\uff08\uff09\u3014\u3015\u3010"
    U"\u3011\u300a\u300b\u3008\u3009\u2329\u232a\u27e6\u27e7";
constexpr std::u32string_view kCurrencies =
    U"$\u00a3\u20ac\u00a5\u0e3f\u20bd\ufdfc\u20b4\u20a0\u20a1\u20a2\u20a3\u20a4\u20a5\u20a6\u20a7\u20a8\u20a9\u20aa"
    U"\u20ab\u20ad\u20ae\u20af\u20b0\u20b1\u20b2\u20b3\u20b5\u20b6\u20b7\u20b8\u20b9\u20ba\u20bb\u20bc\u20be\u20bf";
constexpr std::string_view kDollars[] = {"US$", "C$", "A$"};
constexpr std::string_view kUnits[] = {  // behind a digit
    "km",  "km²", "km³", "m",   "m²",   "m³",   "dm",   "dm²", "dm³",  "cm",  "cm²", "cm³",  "mm", "mm²", "mm³",
    "ha",  "µm",  "nm",  "yd",  "in",   "ft",   "kg",   "g",   "mg",   "µg",  "t",   "lb",   "oz", "m/s", "km/h",
    "kmh", "mph", "hPa", "Pa",  "mbar", "mb",   "MB",   "kb",  "KB",   "gb",  "GB",  "tb",   "TB", "T",   "G",
    "M",   "K",   "%",   "км",  "км²",  "км³",  "м",    "м²",  "м³",   "дм",  "дм²", "дм³",  "см", "см²", "см³",
    "мм",  "мм²", "мм³", "нм",  "кг",   "г",    "мг",   "м/с", "км/ч", "кПа", "Па",  "мбар", "Кб", "КБ",  "кб",
    "Мб",  "МБ",  "мб",  "Гб",  "ГБ",   "гб",   "Тб",   "ТБ",  "كم",   "كم²", "كم³", "م",    "م²", "م³",  "سم",
    "سم²", "سم³", "مم",  "مم²", "مم³",  "غرام", "جرام", "جم",  "كغ",   "ملغ", "كوب", "اكواب"};
constexpr size_t kLongestUnit = 10;  // bytes

struct Range {
  uint32_t first, last;
};
// Latin, Greek, Cyrillic: letters of these have their case by category.
constexpr Range kCased[] = {{0x41, 0x7a},     {0xc0, 0x2af},    {0x386, 0x3ce},   {0x400, 0x4ff},  {0x1d00, 0x1eff},
                            {0x2c60, 0x2c7f}, {0xa722, 0xa7fa}, {0xab30, 0xab64}, {0xff21, 0xff5a}};
// Ethiopic, Bengali, Hebrew, Arabic, Sinhala, Devanagari, Kannada, Tamil, Telugu, Hangul, Kana, Han: whole blocks.
constexpr Range kUncased[] = {
    {0x591, 0x5f4},   {0x620, 0x64a},   {0x66e, 0x6d5},   {0x6e5, 0x6ff},     {0x750, 0x77f},    {0x8a0, 0x8bd},
    {0x900, 0x97f},   {0x980, 0x9ff},   {0xb80, 0xbff},   {0xc00, 0xc7f},     {0xc80, 0xcff},    {0xd80, 0xdff},
    {0x1100, 0x11ff}, {0x1200, 0x137f}, {0x2e80, 0x2fdf}, {0x2ff0, 0x30ff},   {0x31c0, 0x31ef},  {0x3200, 0x4dbf},
    {0x4e00, 0x9fff}, {0xac00, 0xd7af}, {0xf900, 0xfaff}, {0xfb1d, 0xfbb1},   {0xfbd3, 0xfd3d},  {0xfd50, 0xfdc7},
    {0xfdf0, 0xfdfb}, {0xfe30, 0xfe4f}, {0xfe70, 0xfefc}, {0x1ee00, 0x1eebb}, {0x1f200, 0x1f2ff}};
constexpr uint32_t kFirstIdeograph = 0x20000, kLastIdeograph = 0x2fa1f;

bool is_digit(uint32_t code_point) { return code_point >= '0' && code_point <= '9'; }

uint32_t first_of(std::string_view text) {
  const char* at = text.data();
  return text.empty() ? 0 : next_code_point(at);
}
uint32_t last_of(std::string_view text, size_t* bytes = nullptr) {
  if (text.empty()) return 0;
  const char* at = text.data() + text.size();
  const uint32_t code_point = previous_code_point(at);
  if (bytes != nullptr) *bytes = text.size() - static_cast<size_t>(at - text.data());
  return code_point;
}

/// Is a word character of regular expressions: letters, numbers, the underscore.
bool is_word_character(uint32_t code_point) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
  return code_point == '_' || (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
         (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

/// One of the four numbers of a public IP address at the begin of `text`; bytes, or 0.
size_t octet_bytes(std::string_view text, size_t place) {
  size_t bytes = 0;
  int value = 0;
  while (bytes < 3 && bytes < text.size() && is_digit(static_cast<unsigned char>(text[bytes])))
    value = 10 * value + (text[bytes++] - '0');
  if (bytes == 0 || value > (place == 0 ? 223 : place == 3 ? 254 : 255)) return 0;
  if ((place == 0 || place == 3 || bytes == 3) && text[0] == '0') return 0;
  return bytes;
}

/// Bytes of a public address in dotted notation that `text` is or begins with; 0 for none.
size_t public_ip_bytes(std::string_view text) {
  size_t at = 0;
  int octets[4];
  for (size_t place = 0; place < 4; ++place) {
    if (place > 0 && (at >= text.size() || text[at++] != '.')) return 0;
    const size_t bytes = octet_bytes(text.substr(std::min(at, text.size())), place);
    if (bytes == 0) return 0;
    octets[place] = std::atoi(std::string(text.substr(at, bytes)).c_str());
    at += bytes;
  }
  const int a = octets[0], b = octets[1];
  const bool is_private =
      a == 10 || a == 127 || (a == 169 && b == 254) || (a == 192 && b == 168) || (a == 172 && b >= 16 && b <= 31);
  return is_private ? 0 : at;
}

}  // namespace

const EnglishWords& EnglishWords::rules() {
  static const EnglishWords made;
  return made;
}

EnglishWords::EnglishWords() {
  flags_.fill(0);
  const auto category_of = [](uint32_t code_point) {
    return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
  };
  for (const Range& range : kCased)
    for (uint32_t c = range.first; c <= range.last; ++c) {
      if (category_of(c) == UTF8PROC_CATEGORY_LL) flags_[c] |= kLower | kAlpha | kBeforeStop;
      if (category_of(c) == UTF8PROC_CATEGORY_LU) flags_[c] |= kUpper | kAlpha;
      if (category_of(c) == UTF8PROC_CATEGORY_LT || category_of(c) == UTF8PROC_CATEGORY_LO) flags_[c] |= kAlpha;
    }
  for (const Range& range : kUncased)
    for (uint32_t c = range.first; c <= range.last; ++c) flags_[c] |= kLower | kUpper | kAlpha | kBeforeStop;
  for (uint32_t c = 0; c < flags_.size(); ++c)
    if (category_of(c) == UTF8PROC_CATEGORY_SO) flags_[c] |= kSymbol | kPrefix | kSuffix;
  for (const char32_t c : kSigns) flags_[c] |= kPrefix | kSuffix | kBeforeStop;
  for (const char32_t c : kQuotes) flags_[c] |= kPrefix | kSuffix | kQuote | kBeforeStop;
  for (const char32_t c : kCurrencies) flags_[c] |= kPrefix;
  for (const char32_t c : std::u32string_view(U"§%=")) flags_[c] |= kPrefix;
  for (const char32_t c : std::u32string_view(U"—–")) flags_[c] |= kPrefix | kSuffix;
  for (const char32_t c : std::u32string_view(U"0123456789%²-+|")) flags_[c] |= kBeforeStop;

  for (const std::string& marked : english_exceptions()) {
    std::string text;
    Exception exception;
    for (const char byte : marked)
      if (byte == ' ')
        exception.ends.push_back(static_cast<uint32_t>(text.size()));
      else
        text += byte;
    exception.ends.push_back(static_cast<uint32_t>(text.size()));
    cut_affixes(text, false, exception.plain);
    if (exception.plain.size() == 1) exception.plain.clear();
    longest_exception_ = std::max(longest_exception_, text.size());
    most_plain_ = std::max(most_plain_, exception.plain.size());
    exception_hashes_.set(XXH3_64bits(text.data(), text.size()) % exception_hashes_.size());
    exceptions_.emplace(std::move(text), std::move(exception));
  }
}

uint8_t EnglishWords::flags(uint32_t code_point) const {
  if (code_point < flags_.size()) return flags_[code_point];
  const bool is_ideograph = code_point >= kFirstIdeograph && code_point <= kLastIdeograph;
  return is_ideograph ? kLower | kUpper | kAlpha | kBeforeStop : 0;
}

bool EnglishWords::may_be_exception(std::string_view text) const {
  return exception_hashes_[XXH3_64bits(text.data(), text.size()) % exception_hashes_.size()];
}

const EnglishWords::Exception* EnglishWords::find_exception(std::string_view text) const {
  if (text.empty() || text.size() > longest_exception_ || !may_be_exception(text)) return nullptr;
  const auto found = exceptions_.find(text);
  return found == exceptions_.end() ? nullptr : &found->second;
}

size_t EnglishWords::prefix_bytes(std::string_view text) const {
  if (text.starts_with("..")) return std::min(text.find_first_not_of('.'), text.size());
  for (const std::string_view dollar : kDollars)
    if (text.starts_with(dollar)) return dollar.size();
  const char* at = text.data();
  if (text.empty()) return 0;
  const uint32_t code_point = next_code_point(at);
  const auto bytes = static_cast<size_t>(at - text.data());
  if (code_point == '+') return bytes < text.size() && is_digit(static_cast<unsigned char>(text[bytes])) ? 0 : bytes;
  return flags(code_point) & kPrefix ? bytes : 0;
}

/// A full stop at the end that is a word of its own.
bool EnglishWords::ends_with_stop(std::string_view text) const {
  if (!text.ends_with('.')) return false;
  text.remove_suffix(1);
  size_t bytes = 0;
  const uint32_t last = last_of(text, &bytes);
  if (text.empty()) return false;
  if (flags(last) & kBeforeStop) return true;
  text.remove_suffix(bytes);
  const uint32_t before = last_of(text);
  const bool is_degree = before == 0xB0 && std::string_view("FCK").find(static_cast<char>(last)) != std::string::npos;
  return is_degree || (flags(last) & flags(before) & kUpper) != 0;
}

size_t EnglishWords::suffix_bytes(std::string_view text) const {
  if (text.empty()) return 0;
  if (text.ends_with("..")) {
    const size_t last = text.find_last_not_of('.');
    return last == std::string_view::npos ? text.size() : text.size() - last - 1;
  }
  if (text.ends_with("……")) return std::string_view("……").size();
  for (const std::string_view genitive : {"'s", "'S", "’s", "’S"})
    if (text.ends_with(genitive)) return genitive.size();
  // the longest of what stands behind a digit
  for (size_t bytes = std::min(kLongestUnit, text.size() - 1); bytes > 0; --bytes) {
    if (!is_digit(static_cast<unsigned char>(text[text.size() - bytes - 1]))) continue;
    const std::string_view unit = text.substr(text.size() - bytes);
    if (unit == "+" || std::ranges::count(kUnits, unit) || std::ranges::count(kDollars, unit)) return bytes;
    const char* at = unit.data();
    if (const uint32_t sign = next_code_point(at);
        at == unit.data() + unit.size() && kCurrencies.find(sign) != std::u32string_view::npos)
      return bytes;
  }
  size_t bytes = 0;
  if (flags(last_of(text, &bytes)) & kSuffix) return bytes;
  return ends_with_stop(text) ? 1 : 0;
}

/// Of a sign within a word that is a word of its own, at `at`, behind the code point `before`; 0: there is none.
size_t EnglishWords::infix_bytes(std::string_view text, size_t at, uint32_t before) const {
  const std::string_view rest = text.substr(at);
  const uint32_t sign = first_of(rest);
  if (rest.starts_with("..")) return std::min(rest.find_first_not_of('.'), rest.size());
  const auto is_alpha_behind = [&](size_t bytes) { return (flags(first_of(rest.substr(bytes))) & kAlpha) != 0; };
  const bool behind_alpha = flags(before) & kAlpha, behind_letter_or_digit = behind_alpha || is_digit(before);
  switch (sign) {
    case '.': {
      const uint8_t next = flags(first_of(rest.substr(1)));
      return flags(before) & (kLower | kQuote) && next & (kUpper | kQuote) ? 1 : 0;
    }
    case '+':
    case '*':
    case '^':
    case '-':
      if (rest.size() > 1 && is_digit(before) && (is_digit(static_cast<unsigned char>(rest[1])) || rest[1] == '-'))
        return 1;
      if (sign == '-' && behind_letter_or_digit)
        for (const std::string_view dashes : {"-", "--", "---"})
          if (rest.starts_with(dashes) && is_alpha_behind(dashes.size())) return dashes.size();
      return 0;
    case ',':
      return behind_alpha && is_alpha_behind(1) ? 1 : 0;
    case '~':
    case ':':
    case '<':
    case '>':
    case '=':
    case '/':
      return behind_letter_or_digit && is_alpha_behind(1) ? 1 : 0;
    case 0x2013:
    case 0x2014:
      if (behind_letter_or_digit)
        for (const std::string_view dashes : {"–", "—", "——"})
          if (rest.starts_with(dashes) && is_alpha_behind(dashes.size())) return dashes.size();
      return 0;
    case 0x2026:
      return 3;
    default: {
      if (!(flags(sign) & kSymbol)) return 0;
      const char* behind = rest.data();
      next_code_point(behind);
      return static_cast<size_t>(behind - rest.data());
    }
  }
}

void EnglishWords::cut_infixes(std::string_view text, size_t offset, std::vector<uint32_t>& ends) const {
  const auto end_at = [&](size_t at) { ends.push_back(static_cast<uint32_t>(offset + at)); };
  size_t begin = 0;  // of the word that is being read
  uint32_t before = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = infix_bytes(text, at, before);
    if (bytes > 0 && at > 0) {  // at the begin it belongs to what follows
      if (at > begin) end_at(at);
      end_at(begin = at + bytes);
    }
    const char* next = text.data() + at;
    before = next_code_point(next);
    if (bytes > 0) before = last_of(text.substr(at, bytes));
    at = bytes > 0 ? at + bytes : static_cast<size_t>(next - text.data());
  }
  if (begin < text.size()) end_at(text.size());
}

void EnglishWords::cut_affixes(std::string_view chunk, bool with_exceptions, std::vector<uint32_t>& ends) const {
  ends.clear();
  size_t begin = 0, end = chunk.size(), last_size = 0;
  std::vector<uint32_t> behind;  // ends of what was taken off the end, the last first
  const auto exception_at = [&](size_t from, size_t to) {
    return with_exceptions ? find_exception(chunk.substr(from, to - from)) : nullptr;
  };
  while (begin < end && end - begin != last_size) {
    last_size = end - begin;
    if (exception_at(begin, end) != nullptr) break;
    const size_t prefix = prefix_bytes(chunk.substr(begin, end - begin));
    const bool prefix_alone = prefix > 0 && exception_at(begin + prefix, end) != nullptr;
    const size_t suffix = prefix_alone ? 0 : suffix_bytes(chunk.substr(begin + prefix, end - begin - prefix));
    const bool suffix_alone = suffix > 0 && exception_at(begin, end - suffix) != nullptr;
    if (suffix > 0) {
      behind.push_back(static_cast<uint32_t>(end));
      end -= suffix;
    }
    if (prefix > 0 && !suffix_alone) ends.push_back(static_cast<uint32_t>(begin += prefix));
    if (prefix_alone || suffix_alone) break;
  }
  if (begin < end) {
    const std::string_view text = chunk.substr(begin, end - begin);
    if (const Exception* exception = exception_at(begin, end)) {
      for (const uint32_t at : exception->ends) ends.push_back(static_cast<uint32_t>(begin) + at);
    } else if (is_address(text)) {
      ends.push_back(static_cast<uint32_t>(end));
    } else {
      cut_infixes(text, begin, ends);
    }
  }
  ends.insert(ends.end(), behind.rbegin(), behind.rend());
}

/// Words in a row that are what an exception is cut into without it become that exception: the longest first, of equal
/// ones the first; what overlaps one that was looked at before stays.
void EnglishWords::join_exceptions(std::string_view chunk, std::vector<uint32_t>& ends) const {
  struct Found {
    size_t first, count;
    const Exception* exception;
  };
  std::vector<Found> found;
  const auto begin_of = [&](size_t word) { return word == 0 ? 0 : ends[word - 1]; };
  for (size_t first = 0; first < ends.size(); ++first)
    for (size_t count = 2; count <= most_plain_ && first + count <= ends.size(); ++count) {
      const uint32_t begin = begin_of(first), bytes = ends[first + count - 1] - begin;
      if (bytes > longest_exception_) break;
      const Exception* const exception = find_exception(chunk.substr(begin, bytes));
      if (exception == nullptr || exception->plain.size() != count) continue;
      bool same = true;
      for (size_t i = 0; i < count; ++i) same &= ends[first + i] - begin == exception->plain[i];
      if (same) found.push_back({first, count, exception});
    }
  if (found.empty()) return;
  std::ranges::stable_sort(found, [](const Found& a, const Found& b) { return a.count > b.count; });
  std::vector<char> seen(ends.size(), 0);
  std::vector<const Found*> starts(ends.size(), nullptr);
  for (const Found& one : found) {
    if (!seen[one.first] && !seen[one.first + one.count - 1]) starts[one.first] = &one;
    std::fill_n(seen.begin() + static_cast<ptrdiff_t>(one.first), one.count, 1);
  }
  std::vector<uint32_t> joined;
  for (size_t word = 0; word < ends.size();) {
    if (starts[word] == nullptr) {
      joined.push_back(ends[word++]);
      continue;
    }
    for (const uint32_t at : starts[word]->exception->ends) joined.push_back(begin_of(word) + at);
    word += starts[word]->count;
  }
  ends = std::move(joined);
}

void EnglishWords::cut(std::string_view chunk, std::vector<uint32_t>& ends) const {
  cut_affixes(chunk, true, ends);
  if (ends.size() > 1) join_exceptions(chunk, ends);
}

/// Labels joined by stops and a last one of lower-case letters: bytes of what `text` begins with; 0 for none.
size_t EnglishWords::host_bytes(std::string_view text) const {
  constexpr size_t kLongestLabel = 64, kLongestLast = 63;
  const auto is_inner = [](uint32_t c) {  // of a label
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= 0xA1 && c <= 0xFFFF);
  };
  text = text.substr(0, text.find_first_of(":/?#@"));
  const size_t last_stop = text.rfind('.');
  if (last_stop == std::string_view::npos) return 0;
  for (size_t at = 0; at <= last_stop;) {
    const std::string_view label = text.substr(at, text.find('.', at) - at);
    size_t count = 0;
    for (const char* c = label.data(); c != label.data() + label.size(); ++count)
      if (const uint32_t code_point = next_code_point(c);
          count >= kLongestLabel || (!is_inner(code_point) && code_point != '_' && code_point != '-'))
        return 0;
    if (count == 0 || !is_inner(first_of(label)) || !is_inner(last_of(label))) return 0;
    at += label.size() + 1;
  }
  size_t count = 0;
  for (const char* c = text.data() + last_stop + 1; c != text.data() + text.size(); ++count)
    if (count >= kLongestLast || !(flags(next_code_point(c)) & kLower)) return 0;
  return count < 2 ? 0 : text.size();
}

/// A host or a public IP address; then a port, then a path.
bool EnglishWords::is_place(std::string_view text) const {
  const auto ends_at = [&](size_t at) {
    if (at == 0) return false;
    if (at < text.size() && text[at] == ':') {
      size_t digits = 0;
      while (at + 1 + digits < text.size() && is_digit(static_cast<unsigned char>(text[at + 1 + digits]))) ++digits;
      if (digits < 2 || digits > 5) return false;
      at += 1 + digits;
    }
    return at == text.size() || std::string_view("/?#").find(text[at]) != std::string_view::npos;
  };
  return ends_at(public_ip_bytes(text)) || ends_at(host_bytes(text));
}

/// A URL, with or without its scheme, or a mail address.
bool EnglishWords::is_address(std::string_view text) const {
  if (is_place(text)) return true;
  if (const size_t slashes = text.find("://"); slashes != std::string_view::npos) {
    size_t count = 0;
    bool is_scheme = true;
    for (const char* at = text.data(); is_scheme && at != text.data() + slashes; ++count) {
      const uint32_t code_point = next_code_point(at);
      is_scheme = is_word_character(code_point) || code_point == '+' || code_point == '-' || code_point == '.';
    }
    if (is_scheme && count >= 2 && is_place(text.substr(slashes + 3))) return true;
  }
  for (size_t at = text.find('@'); at != std::string_view::npos; at = text.find('@', at + 1))
    if (at > 0 && is_place(text.substr(at + 1))) return true;
  return false;
}

}  // namespace coppice
