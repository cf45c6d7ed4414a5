// White space as Jinja's lexer treats it under trim_blocks and lstrip_blocks: a statement or comment takes the spaces
// before it on its line and one line break behind it; "-" takes all white space on its side, "+" none.
#include "src/tasks/template_tags.h"

#include <fmt/format.h>

#include "src/base/errors.h"
#include "src/tasks/python_text.h"
#include "src/tasks/template_lexer.h"

namespace coppice {
namespace {

std::string with_newlines(std::string_view source) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {
    const bool pair = source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n';
    if (!pair) text += source[i] == '\r' ? '\n' : source[i];
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

/// Takes the spaces behind the last line break, if there is nothing else; of a text without a break, if it begins a
/// line.
std::string_view without_indent(std::string_view text, bool begins_line) {
  const size_t line = text.rfind('\n') + 1;
  const bool only_spaces = strip(text.substr(line)).empty();
  return only_spaces && (line > 0 || begins_line) ? text.substr(0, line) : text;
}

}  // namespace

std::vector<TemplateTag> split_template(std::string_view given, const std::string& where) {
  const std::string whole = with_newlines(given);
  const std::string_view source = whole;
  std::vector<TemplateTag> tags;
  bool begins_line = true;
  for (size_t at = 0; at < source.size();) {
    size_t open = at;
    while (open < source.size() && !(source[open] == '{' && open + 1 < source.size() &&
                                     std::string_view("{%#").find(source[open + 1]) != std::string_view::npos))
      ++open;
    std::string_view text = source.substr(at, open - at);
    if (open == source.size()) {
      if (!text.empty()) tags.push_back({TemplateTag::text, std::string(text)});
      break;
    }
    const char kind = source[open + 1];
    const std::string end = {kind == '{' ? '}' : kind, '}'};
    size_t inner = open + 2;
    const char before = inner < source.size() ? source[inner] : ' ';
    const bool marked = before == '-' || before == '+';
    if (before == '-') text = strip_right(text);
    if (kind != '{' && !marked) text = without_indent(text, begins_line);
    if (marked) ++inner;
    const size_t close = kind == '#' ? source.find(end, inner) : find_tag_end(source, inner, end, where);
    if (close == std::string_view::npos)
      throw UserError::bad_file(where, fmt::format("template: '{{{}' without '{}'", kind, end));
    const char after = close > inner ? source[close - 1] : ' ';
    const std::string_view inside = source.substr(inner, close - inner - (after == '-' || after == '+' ? 1 : 0));
    if (!text.empty()) tags.push_back({TemplateTag::text, std::string(text)});
    if (kind != '#')
      tags.push_back({kind == '{' ? TemplateTag::output : TemplateTag::statement, std::string(strip(inside))});
    at = close + 2;
    if (after == '-')
      at = source.size() - strip_left(source.substr(at)).size();
    else if (kind != '{' && after != '+' && at < source.size() && source[at] == '\n')
      ++at;
    begins_line = source[at - 1] == '\n';
  }
  return tags;
}

}  // namespace coppice
