// The words, numbers, texts and signs of a template's expression. Private to src/tasks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace coppice {

struct TemplateToken {
  enum Kind { name, text, number, sign, end } kind = end;
  std::string text_value;  // as it is written; of a text, what it says
  int64_t number_value = 0;
};

class TemplateLexer {
 public:
  /// Both outlive this.
  TemplateLexer(std::string_view source, const std::string& where) : source_(source), where_(where) {}

  /// UserError::bad_file for a sign or an escape that is not read, and for a text without its end.
  TemplateToken next();
  [[noreturn]] void refuse(const std::string& message) const;

 private:
  TemplateToken read_text(char quote);

  std::string_view source_;
  size_t at_ = 0;
  const std::string& where_;
};

/// Where `end` ("}}", "%}") stands behind `from`, texts and braces skipped; npos: nowhere. UserError::bad_file at
/// `where` for a text without its closing quote.
size_t find_tag_end(std::string_view source, size_t from, std::string_view end, const std::string& where);

/// UserError::bad_file at `where` for a template that is too long.
void check_template_source(std::string_view source, const std::string& where);

}  // namespace coppice
