#include "src/corpus/language/language.h"

#include <cstdio>  // before CLD2's header, which needs it

#include <cld2/public/compact_lang_det.h>

#include <algorithm>

#include "src/base/utf8_byte.h"

namespace coppice {
namespace {

constexpr size_t kSliceBytes = 640, kMostBytes = 65536;

/// Whole characters of [begin, begin + bytes).
std::string_view slice(std::string_view text, size_t begin, size_t bytes) {
  const auto is_inside = [&](size_t at) { return at < text.size() && is_continuation_byte(text[at]); };
  size_t end = std::min(begin + bytes, text.size());
  while (is_inside(begin)) ++begin;
  while (end > begin && is_inside(end)) --end;
  return text.substr(begin, end - begin);
}

/// CLD2 keeps codes that ISO 639 has given up.
std::string code_of(CLD2::Language language) {
  const std::string code = CLD2::LanguageCode(language);
  return code == "iw" ? "he" : code == "jw" ? "jv" : code;
}

Language detect(std::string_view text) {
  CLD2::Language languages[3] = {};
  int percents[3] = {}, letters = 0;
  bool reliable = false;
  CLD2::DetectLanguageSummary(text.data(), static_cast<int>(text.size()), /*is_plain_text=*/true, languages, percents,
                              &letters, &reliable);
  return {code_of(languages[0]), reliable ? percents[0] / 100.0 : 0};
}

}  // namespace

Language detect_language(std::string_view text) {
  if (text.size() <= 3 * kSliceBytes) return detect(text);
  std::string slices;
  slices.reserve(3 * kSliceBytes + 2);
  slices += slice(text, 0, kSliceBytes);
  slices += ' ';
  slices += slice(text, (text.size() - kSliceBytes) / 2, kSliceBytes);
  slices += ' ';
  slices += slice(text, text.size() - kSliceBytes, kSliceBytes);
  const Language language = detect(slices);
  return language.share > 0 ? language : detect(slice(text, 0, kMostBytes));
}

bool is_language_code(std::string_view code) {
  for (int language = 0; language < CLD2::NUM_LANGUAGES; ++language)
    if (!code.empty() && code_of(static_cast<CLD2::Language>(language)) == code) return true;
  return false;
}

}  // namespace coppice
