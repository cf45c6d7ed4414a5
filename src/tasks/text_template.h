// The part of Jinja that task files use: text with {{ expressions }} over a document's fields.
//   field  a.b  a['b']  a[i]  a[-1]  a[1:-1]  'text'  12  true  none  [x, y]  x if y else z
//   x + y  x - y  x % y  x ~ y  x == y  x < y  x in y  not x  x and y  x or y  x is [not] defined (none, string, ...)
//   functions, methods and filters: the tables of template_parser.cpp
// Anything else is refused by its name when the template is read. Chat templates are written in the same expressions
// (chat_template.h).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/json.h"

namespace coppice {

struct TemplateNode;

class TextTemplate {
 public:
  /// UserError::bad_file at `where` for what is outside the part above.
  TextTemplate(std::string_view source, const std::string& where);

  /// What the template makes of a document: the value itself where it is one expression and nothing else, text
  /// otherwise. UserError::bad_file at `where` for a field that is missing or of another type.
  Json value(const Json& document, const std::string& where) const;

 private:
  struct Piece {
    std::string text;
    std::shared_ptr<const TemplateNode> expression;  // none: text
  };
  std::vector<Piece> pieces_;
};

/// Python's str(value) of a text, a number, a truth value or None; UserError::bad_file at `where` for a list or object.
std::string text_of(const Json& value, const std::string& where);

}  // namespace coppice
