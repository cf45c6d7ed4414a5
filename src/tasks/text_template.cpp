#include "src/tasks/text_template.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "src/base/errors.h"
#include "src/tasks/template_calls.h"
#include "src/tasks/template_expression.h"
#include "src/tasks/template_lexer.h"

namespace coppice {

TextTemplate::TextTemplate(std::string_view source, const std::string& where) {
  check_template_source(source, where);
  std::string text;
  for (size_t at = 0; at < source.size();) {
    const std::string_view rest = source.substr(at);
    if (rest.starts_with("{%") || rest.starts_with("{#") || rest.starts_with("{{-") || rest.starts_with("{{+"))
      throw UserError::bad_file(where, fmt::format("template: '{}' is not part of the Jinja that coppice reads",
                                                   rest.substr(0, rest[1] == '{' ? 3 : 2)));
    if (!rest.starts_with("{{")) {
      text += source[at++];
      continue;
    }
    if (!text.empty()) pieces_.push_back({std::exchange(text, {}), nullptr});
    const size_t end = find_tag_end(source, at + 2, "}}", where);
    if (end == std::string_view::npos) throw UserError::bad_file(where, "template: '{{' without '}}'");
    pieces_.push_back({{}, parse_expression(source.substr(at + 2, end - at - 2), where)});
    at = end + 2;
  }
  if (!text.empty() || pieces_.empty()) pieces_.push_back({text, nullptr});
}

Json TextTemplate::value(const Json& document, const std::string& where) const {
  TemplateScope scope(document, /*strict=*/true);
  if (pieces_.size() == 1 && pieces_[0].expression) return expression_value(*pieces_[0].expression, scope, where);
  std::string text;
  for (const Piece& piece : pieces_) {
    text += piece.expression ? text_of(expression_value(*piece.expression, scope, where), where) : piece.text;
    check_template_size(text.size(), where);
  }
  return text;
}

std::string text_of(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_null()) return "None";
  if (value.is_number_integer()) return value.dump();
  if (value.is_number_float()) return value.dump();  // the shortest that reads back, with a point, as repr() has it
  throw UserError::bad_file(where, value.is_discarded()
                                       ? "something that is not defined stands where a text was expected"
                                       : "a list or an object stands where a text was expected");
}

}  // namespace coppice
