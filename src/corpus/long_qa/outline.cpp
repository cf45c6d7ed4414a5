#include "src/corpus/long_qa/outline.h"

#include <algorithm>
#include <optional>

namespace coppice {
namespace {

constexpr size_t kMinTitleBytes = 3, kMaxTitleBytes = 80, kMaxListTitleBytes = 200;
constexpr size_t kMinItems = 3, kMaxItems = 20, kMaxListBytes = 1500;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_letter(char c) { return is_upper(c) || is_lower(c) || (static_cast<unsigned char>(c) & 0x80) != 0; }

ByteSpan trimmed(std::string_view text, ByteSpan span) {
  while (span.begin < span.end && is_blank(text[span.begin])) ++span.begin;
  while (span.end > span.begin && is_blank(text[span.end - 1])) --span.end;
  return span;
}

/// Without the marks of a Markdown title.
ByteSpan title_words(std::string_view text, ByteSpan line) {
  while (line.begin < line.end && text[line.begin] == '#') ++line.begin;
  return trimmed(text, line);
}

/// `- x`, `* x`, `• x`, `3. x`, `3) x`.
bool is_item(std::string_view line) {
  if (line.starts_with("- ") || line.starts_with("* ") || line.starts_with("\u2022 ")) return line.size() > 4;
  size_t digits = 0;
  while (digits < line.size() && digits < 4 && is_digit(line[digits])) ++digits;
  return digits > 0 && digits + 2 < line.size() && (line[digits] == '.' || line[digits] == ')') &&
         line[digits + 1] == ' ';
}

/// Reads lines one by one; a paragraph is cut into sentences when it ends.
class OutlineReader {
 public:
  explicit OutlineReader(std::string_view text) : text_(text) {}

  Outline read() {
    for (size_t at = 0; at < text_.size();) {
      const size_t newline = std::min(text_.find('\n', at), text_.size());
      const size_t next = std::min(text_.find('\n', newline + 1), text_.size());  // the line behind
      const ByteSpan line = trimmed(text_, {at, newline});
      const bool blank_behind = newline + 1 >= text_.size() || trimmed(text_, {newline + 1, next}).size() == 0;
      take(line, blank_behind);
      at = newline + 1;
    }
    end_paragraph();
    end_list();
    end_section();
    return std::move(outline_);
  }

 private:
  void take(ByteSpan line, bool blank_behind) {
    const std::string_view words = line.of(text_);
    if (words.empty()) {
      end_paragraph();
      end_list();
      blank_before_ = true;
      return;
    }
    if (is_item(words)) {
      end_paragraph();
      if (num_items_++ == 0) items_.begin = line.begin;
      items_.end = line.end;
    } else {
      end_list();
      if (is_title(words, blank_before_ && blank_behind)) {
        end_paragraph();
        end_section();
        title_ = title_words(text_, line);
        section_ = Section{.title = *title_, .sentence = outline_.sentences.size()};
      } else {
        if (paragraph_.size() == 0) paragraph_.begin = line.begin;
        paragraph_.end = line.end;
        title_.reset();
        if (words.back() == ':' && words.size() <= kMaxListTitleBytes)
          title_ = trimmed(text_, {line.begin, line.end - 1});
      }
    }
    blank_before_ = false;
  }

  void end_paragraph() {
    for (size_t at = paragraph_.begin; at < paragraph_.end;) {
      const size_t end = sentence_end(text_.substr(0, paragraph_.end), at);
      const ByteSpan sentence = trimmed(text_, {at, end});
      if (sentence.size() > 0) outline_.sentences.push_back(sentence);
      at = end;
    }
    paragraph_ = {};
  }

  void end_list() {
    if (num_items_ == 0) return;
    if (title_ && num_items_ >= kMinItems && num_items_ <= kMaxItems && items_.size() <= kMaxListBytes)
      outline_.lists.push_back({.title = *title_, .items = items_, .count = num_items_});
    num_items_ = 0;
    title_.reset();
  }

  void end_section() {
    if (section_ && outline_.sentences.size() > section_->sentence) {
      section_->end = outline_.sentences.size();
      outline_.sections.push_back(*section_);
    }
    section_.reset();
  }

  std::string_view text_;
  Outline outline_;
  ByteSpan paragraph_, items_;
  size_t num_items_ = 0;
  bool blank_before_ = false;      // a window may begin in the middle of a paragraph
  std::optional<ByteSpan> title_;  // of a list, should one follow
  std::optional<Section> section_;
};

}  // namespace

Outline outline_of(std::string_view text) { return OutlineReader(text).read(); }

bool is_title(std::string_view line, bool stands_alone) {
  const size_t marks = std::min(line.find_first_not_of('#'), line.size());
  if (marks > 0 && marks <= 6 && marks < line.size() && line[marks] == ' ') return line.size() <= 2 * kMaxTitleBytes;
  if (!stands_alone || line.size() < kMinTitleBytes || line.size() > kMaxTitleBytes) return false;
  const char first = line.front();
  if (!is_upper(first) && !is_digit(first) && (static_cast<unsigned char>(first) & 0x80) == 0) return false;
  if (std::string_view(".,;:!?])\"'").find(line.back()) != std::string_view::npos) return false;
  if (line.ends_with("\u3002") || line.ends_with("\uFF01") || line.ends_with("\uFF1F")) return false;
  return std::ranges::any_of(line, is_letter);
}

size_t sentence_end(std::string_view text, size_t begin) {
  for (size_t at = begin; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '\xE3' || c == '\xEF') {
      const std::string_view sign = text.substr(at, 3);
      if (sign == "\u3002" || sign == "\uFF01" || sign == "\uFF1F") return at + 3;
      continue;
    }
    if (c != '.' && c != '!' && c != '?') continue;
    size_t end = at + 1;
    while (end < text.size() && std::string_view(".!?)]\"'").find(text[end]) != std::string_view::npos) ++end;
    if (text.substr(end).starts_with("\u201D") || text.substr(end).starts_with("\u2019")) end += 3;
    if (end == text.size()) return end;
    size_t next = end;
    while (next < text.size() && is_blank(text[next])) ++next;
    size_t word = at;
    while (word > begin && at - word < 4 && is_letter(text[word - 1])) --word;
    const bool abbreviates = at - word >= 1 && at - word <= 3 && is_upper(text[word]);
    const bool goes_on = next < text.size() && is_lower(text[next]);
    if (next > end && !(c == '.' && (abbreviates || goes_on))) return end;
    at = next - 1;
  }
  return text.size();
}

}  // namespace coppice
