#include "src/corpus/quality/c4.h"

#include <algorithm>
#include <cstring>

namespace coppice {
namespace {

constexpr std::string_view kPolicies[] = {"terms of use", "privacy policy", "cookie policy",
                                          "uses cookies", "use of cookies", "use cookies"};

void lower_ascii(std::string_view text, std::string& lower) {
  lower.resize(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const char byte = text[i];
    lower[i] = static_cast<char>(byte + (byte >= 'A' && byte <= 'Z' ? 'a' - 'A' : 0));
  }
}

bool holds(std::string_view text, std::string_view sought) {
  return memmem(text.data(), text.size(), sought.data(), sought.size()) != nullptr;
}

/// Bytes of a reference that `text`, which begins with [, begins with: [12], [], [edit], [citation needed]; 0: none.
size_t reference_bytes(std::string_view text) {
  for (const std::string_view mark : {"[edit]", "[citation needed]"})
    if (text.starts_with(mark)) return mark.size();
  const char* at = text.data() + 1;
  const char* const end = text.data() + text.size();
  while (at != end && *at != ']')
    if (!(CharacterFlags::table()[next_code_point(at)] & character::kDigit)) return 0;
  return at == end ? 0 : static_cast<size_t>(at - text.data()) + 1;
}

/// Without references; false where there are none, and `cut` is not written.
bool cut_references(std::string_view line, std::string& cut) {
  size_t begin = 0;
  for (size_t at = line.find('['); at != std::string_view::npos; at = line.find('[', at)) {
    const size_t bytes = reference_bytes(line.substr(at));
    if (bytes == 0) {
      ++at;
      continue;
    }
    if (begin == 0) cut.clear();
    cut.append(line, begin, at - begin);
    begin = at += bytes;
  }
  if (begin == 0) return false;
  cut.append(line, begin);
  return true;
}

}  // namespace

C4::Fate C4::fate_of(std::string_view& line) {
  int64_t words = 0;
  const char* const end = line.data() + line.size();
  const bool may_hold_long_word = static_cast<int64_t>(line.size()) > options_.longest_word;
  for (const char* at = line.data(); at != end && (may_hold_long_word || words < options_.fewest_words); ++words) {
    const char* const word = at;
    at = skip_chunk(at, end);
    if (static_cast<int64_t>(num_code_points({word, static_cast<size_t>(at - word)})) > options_.longest_word)
      return Fate::long_word;
    at = skip_white_space(at, end);
  }
  if (cut_references(line, cut_)) line = cut_;
  const bool is_closed = !line.empty() && std::string_view(".?!\"'").find(line.back()) != std::string_view::npos;
  if (options_.terminal && (!is_closed || line.ends_with("..."))) return Fate::open;
  if (words < options_.fewest_words) return Fate::few_words;
  if (has_lorem_ipsum_ || has_javascript_ || has_policy_) lower_ascii(line, lower_);
  if (has_lorem_ipsum_ && holds(lower_, "lorem ipsum")) return Fate::lorem_ipsum;
  if (has_javascript_ && holds(lower_, "javascript")) return Fate::javascript;
  if (line.find('{') != std::string_view::npos) return Fate::curly_bracket;
  const auto is_in_line = [&](std::string_view policy) { return holds(lower_, policy); };
  if (has_policy_ && std::ranges::any_of(kPolicies, is_in_line)) return Fate::policy;
  return Fate::kept;
}

void C4::measure(QualityText& text, std::span<double> values, bool to_end) {
  lines_ = {};
  kept_words_ = 0;
  kept_.clear();
  lower_ascii(text.text(), lower_);
  has_lorem_ipsum_ = holds(lower_, "lorem");
  has_javascript_ = holds(lower_, "javascript");
  has_policy_ = holds(lower_, "cookie") || holds(lower_, "policy") || holds(lower_, "terms of use");
  uint64_t sentences = 0;
  bool has_lorem_ipsum = false, has_curly_bracket = false;
  for_each_line(text.text(), [&](std::string_view line) {
    const bool has_ended = has_lorem_ipsum || has_curly_bracket;
    if (has_ended && !to_end) return;
    line = strip_blanks(line);
    switch (fate_of(line)) {
      case Fate::long_word:
        ++lines_.long_word;
        return;
      case Fate::open:
        ++lines_.open;
        return;
      case Fate::few_words:
        ++lines_.few_words;
        return;
      case Fate::javascript:
        ++lines_.javascript;
        return;
      case Fate::policy:
        ++lines_.policy;
        return;
      case Fate::lorem_ipsum:
        has_lorem_ipsum |= !has_ended;
        if (!to_end) return;
        break;
      case Fate::curly_bracket:
        has_curly_bracket |= !has_ended;
        if (!to_end) return;
        break;
      case Fate::kept:
        break;
    }
    const QualityText::Line counts = text.count_line(line);
    sentences += counts.sentences;
    kept_words_ += counts.words;
    if (lines_.kept++ > 0) kept_ += '\n';
    kept_ += line;
  });
  values[0] = has_lorem_ipsum;
  values[1] = has_curly_bracket;
  if (!has_lorem_ipsum && !has_curly_bracket) values[2] = static_cast<double>(sentences);
  if (const std::string_view stripped = strip_blanks(kept_); stripped.size() < kept_.size())
    kept_ = std::string(stripped);
}

}  // namespace coppice
