#include "src/text/tag_scanner.h"

#include <algorithm>

#include "src/text/ascii_case.h"

namespace coppice {

namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_letter(char c) { return lower_ascii(c) >= 'a' && lower_ascii(c) <= 'z'; }

size_t skip_blanks(std::string_view text, size_t at) {
  return std::min(text.find_first_not_of(kAsciiBlanks, at), text.size());
}

struct Attribute {
  std::string_view name, value;
};

/// The attribute at `at`, which moves behind it; false at the end of the tag: its '>', or where the text ends first.
bool next_attribute(std::string_view text, size_t& at, Attribute& attribute) {
  while ((at = skip_blanks(text, at)) < text.size() && text[at] == '/') ++at;
  if (at == text.size() || text[at] == '>') return false;
  const size_t name_end = std::min(text.find_first_of(" \t\r\n\f/>=", at + 1), text.size());
  attribute = {text.substr(at, name_end - at), {}};
  at = name_end;
  const size_t equals = skip_blanks(text, at);
  if (equals == text.size() || text[equals] != '=') return true;
  at = skip_blanks(text, equals + 1);
  if (at == text.size()) return false;
  const char quote = text[at];
  const bool is_quoted = quote == '"' || quote == '\'';
  const size_t begin = at + is_quoted;
  const size_t end = is_quoted ? text.find(quote, begin) : text.find_first_of(" \t\r\n\f>", begin);
  attribute.value = text.substr(begin, end == kNone ? kNone : end - begin);
  at = end == kNone ? text.size() : end + is_quoted;
  return true;
}

/// Place of the end tag `</name`; the text's end where there is none.
size_t find_end_tag(std::string_view text, size_t at, std::string_view name) {
  while ((at = text.find("</", at)) != kNone) {
    if (starts_ignoring_case(text.substr(at + 2), name)) return at;
    at += 2;
  }
  return text.size();
}

}  // namespace

bool MarkupTag::is(std::string_view other) const { return equals_ignoring_case(name, other); }

std::optional<std::string_view> MarkupTag::find(std::string_view attribute) const {
  Attribute found;
  for (size_t at = 0; next_attribute(attributes, at, found);)
    if (equals_ignoring_case(found.name, attribute)) return found.value;
  return std::nullopt;
}

bool TagScanner::next(MarkupTag& tag) {
  while ((at_ = html_.find('<', at_)) != kNone) {
    const size_t begin = at_;
    if (html_.substr(at_).starts_with("<!--")) {
      const size_t end = html_.find("-->", at_ + 2);  // <!--> is a whole comment
      at_ = end == kNone ? html_.size() : end + 3;
      continue;
    }
    const bool is_end = html_.substr(at_ + 1).starts_with('/');
    const size_t name = at_ + 1 + is_end;
    at_ = name;
    if (name >= html_.size() || !is_letter(html_[name])) continue;
    const size_t name_end = std::min(html_.find_first_of(" \t\r\n\f/>", name), html_.size());
    tag = {html_.substr(name - is_end, name_end - name + is_end), {}, begin};
    Attribute ignored;
    at_ = name_end;
    while (next_attribute(html_, at_, ignored)) {
    }
    tag.attributes = html_.substr(name_end, at_ - name_end);
    for (const std::string_view raw : {"script", "style"})
      if (tag.is(raw)) at_ = find_end_tag(html_, at_, raw);
    return true;
  }
  at_ = html_.size();
  return false;
}

}  // namespace coppice
