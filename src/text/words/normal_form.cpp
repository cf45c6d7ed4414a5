// The normal form, in one pass: ASCII by a table of 128 bytes, the basic plane by a table of what a code point becomes,
// the rest (Hangul, letters that decompose into several, planes above) by utf8proc.
#include "src/text/words/normal_form.h"

#include <utf8proc.h>

#include <array>
#include <cstring>

#include "src/text/words/characters.h"
#include "src/text/words/code_points.h"

namespace coppice {
namespace {

// What a code point becomes: another one, or one of these.
constexpr int32_t kBlank = -1, kNothing = -2, kDigit = -3, kSeveral = -4;
constexpr uint32_t kCapitalSigma = 0x3A3, kSigma = 0x3C3, kFinalSigma = 0x3C2;
constexpr size_t kLongest = 4 * 4;  // bytes of a canonical decomposition: four code points at most

utf8proc_category_t category_of(uint32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

/// Lower case, NFD without marks; how many code points are left.
int decompose(uint32_t code_point, utf8proc_int32_t (&parts)[8]) {
  int last_class = UTF8PROC_BOUNDCLASS_START;
  const auto found = utf8proc_decompose_char(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point)), parts, 8,
                                             UTF8PROC_DECOMPOSE, &last_class);
  int count = 0;
  for (int i = 0; i < found; ++i)
    if (utf8proc_category(parts[i]) != UTF8PROC_CATEGORY_MN) parts[count++] = parts[i];
  return count;
}

int32_t fold(uint32_t code_point) {
  const uint16_t flags = CharacterFlags::table()[code_point];
  if (category_of(code_point) == UTF8PROC_CATEGORY_ND) return kDigit;
  if (flags & (character::kSpaced | character::kWhiteSpace)) return kBlank;
  if (code_point == kCapitalSigma) return kSeveral;
  utf8proc_int32_t parts[8];
  const int count = decompose(code_point, parts);
  return count == 0 ? kNothing : count == 1 ? parts[0] : kSeveral;
}

class FoldTable {
 public:
  static const FoldTable& get() {
    static const FoldTable made;
    return made;
  }
  int32_t operator[](uint32_t code_point) const {
    return code_point < folded_.size() ? folded_[code_point] : fold(code_point);
  }

 private:
  FoldTable() {
    for (uint32_t code_point = 0; code_point < folded_.size(); ++code_point) folded_[code_point] = fold(code_point);
  }
  std::array<int32_t, 0x10000> folded_;
};

/// Between the digits of one number, as datatrove's pattern has it.
bool is_digit_separator(uint32_t code_point) {
  return code_point == '.' || code_point == ',' || code_point == 0x60C || code_point == 0x66B ||
         (code_point >= 0x2396 && code_point <= 0x2398);
}

bool is_cased(uint32_t code_point) {
  const utf8proc_category_t category = category_of(code_point);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

/// Marks, and signs within words: passed over when looking for a letter beside a sigma (Unicode 3.13, Final_Sigma).
bool is_case_ignorable(uint32_t code_point) {
  switch (category_of(code_point)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return code_point == '\'' || code_point == '.' || code_point == ':' || code_point == 0xB7 ||
             code_point == 0x2018 || code_point == 0x2019;
  }
}

/// A capital sigma [begin of it, behind it) at the end of a word. Looks at 64 code points a side at most.
bool is_final_sigma(std::string_view text, const char* begin, const char* end) {
  constexpr int kMost = 64;
  bool letter_before = false;
  for (int i = 0; i < kMost && begin != text.data(); ++i) {
    const uint32_t code_point = previous_code_point(begin);
    if (is_case_ignorable(code_point)) continue;
    letter_before = is_cased(code_point);
    break;
  }
  if (!letter_before) return false;
  for (int i = 0; i < kMost && end != text.data() + text.size(); ++i) {
    const uint32_t code_point = next_code_point(end);
    if (!is_case_ignorable(code_point)) return !is_cased(code_point);
  }
  return true;
}

/// ASCII letters in lower case; 0 for all other bytes.
constexpr std::array<uint8_t, 256> kAsciiForm = [] {
  std::array<uint8_t, 256> forms{};
  for (uint8_t letter = 'a'; letter <= 'z'; ++letter) forms[letter] = forms[letter - 'a' + 'A'] = letter;
  return forms;
}();

/// Writes words with one blank between them; room for what is written is made before.
class Writer {
 public:
  Writer(std::string& out, size_t text_bytes) : out_(out) {
    if (out_.size() < text_bytes + kLongest) out_.resize(text_bytes + kLongest);
    at_ = out_.data();
  }
  void blank() { gap_ = at_ != out_.data(); }
  /// ASCII letters from `begin` on; behind them. There is room: as many bytes as are read.
  const char* put_ascii(const char* begin, const char* end) {
    char* at = at_;
    *at = ' ';
    at += gap_ && begin != end && kAsciiForm[static_cast<unsigned char>(*begin)] != 0;
    gap_ = gap_ && at == at_;
    for (; begin != end; ++begin) {
      const uint8_t form = kAsciiForm[static_cast<unsigned char>(*begin)];
      if (form == 0) break;
      *at++ = static_cast<char>(form);
    }
    at_ = at;
    return begin;
  }
  void put(uint32_t code_point, size_t bytes_left) {
    make_room(bytes_left);
    *at_ = ' ';
    at_ += gap_;
    gap_ = false;
    at_ = write_code_point(code_point, at_);
  }
  void finish() { out_.resize(static_cast<size_t>(at_ - out_.data())); }

 private:
  void make_room(size_t bytes_left) {
    const auto used = static_cast<size_t>(at_ - out_.data());
    if (used + bytes_left + kLongest + 1 <= out_.size()) return;
    out_.resize(2 * out_.size() + bytes_left + kLongest);
    at_ = out_.data() + used;
  }

  std::string& out_;
  char* at_;
  bool gap_ = false;  // a blank is due before the next character
};

}  // namespace

void normal_form(std::string_view text, std::string& out) {
  const FoldTable& folded = FoldTable::get();
  const char* at = text.data();
  const char* const end = at + text.size();
  Writer writer(out, text.size());
  const auto is_digit = [&](const char* place) { return place != end && folded[next_code_point(place)] == kDigit; };
  while ((at = writer.put_ascii(at, end)) != end) {
    const char* const begin = at;
    const uint32_t code_point = next_code_point(at);
    const int32_t becomes = folded[code_point];
    const auto left = static_cast<size_t>(end - at);
    if (becomes >= 0) {
      writer.put(static_cast<uint32_t>(becomes), left);
    } else if (becomes == kBlank) {
      writer.blank();
    } else if (becomes == kDigit) {
      while (is_digit(at)) next_code_point(at);
      if (const char* behind = at; at != end && is_digit_separator(next_code_point(behind)) && is_digit(behind))
        for (at = behind; is_digit(at);) next_code_point(at);
      writer.put('0', static_cast<size_t>(end - at));
    } else if (code_point == kCapitalSigma) {
      writer.put(is_final_sigma(text, begin, at) ? kFinalSigma : kSigma, left);
    } else if (becomes == kSeveral) {
      utf8proc_int32_t parts[8];
      const int count = decompose(code_point, parts);
      for (int i = 0; i < count; ++i) writer.put(static_cast<uint32_t>(parts[i]), left);
    }
  }
  writer.finish();
}

void split_normal_form(std::string_view normal, std::vector<std::string_view>& words) {
  words.clear();
  for (size_t begin = 0; begin < normal.size();) {
    const size_t end = std::min(normal.find(' ', begin), normal.size());
    words.push_back(normal.substr(begin, end - begin));
    begin = end + 1;
  }
}

}  // namespace coppice
