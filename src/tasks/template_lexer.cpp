#include "src/tasks/template_lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "src/base/errors.h"
#include "src/tasks/template_expression.h"

namespace coppice {
namespace {

constexpr std::array<std::string_view, 4> kLongSigns = {"==", "!=", "<=", ">="};
constexpr std::string_view kSigns = ".,()[]|+-~:%<>=";
constexpr const char* kNoQuote = "template: a text without its closing quote";

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }
bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }
bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool is_name(char c) { return is_name_start(c) || is_digit(c); }

}  // namespace

void TemplateLexer::refuse(const std::string& message) const {
  throw UserError::bad_file(where_, fmt::format("template: {}", message));
}

TemplateToken TemplateLexer::next() {
  while (at_ < source_.size() && is_space(source_[at_])) ++at_;
  if (at_ == source_.size()) return {};
  const char c = source_[at_];
  const std::string_view rest = source_.substr(at_);
  if (c == '\'' || c == '"') return read_text(c);
  TemplateToken token;
  if (is_name_start(c)) {
    token = {TemplateToken::name, std::string(rest.begin(), std::ranges::find_if_not(rest, is_name))};
  } else if (is_digit(c)) {
    token.kind = TemplateToken::number;
    const auto [stop, error] = std::from_chars(rest.data(), rest.data() + rest.size(), token.number_value);
    if (error != std::errc()) refuse("a number is too large");
    token.text_value = std::string(rest.data(), stop);
  } else {
    const bool is_long = std::ranges::find(kLongSigns, rest.substr(0, 2)) != kLongSigns.end();
    token = {TemplateToken::sign, std::string(rest.substr(0, is_long ? 2 : 1))};
    if (!is_long && kSigns.find(c) == std::string_view::npos)
      refuse(fmt::format("'{}' is not part of the Jinja that coppice reads", printable(token.text_value)));
  }
  at_ += token.text_value.size();
  return token;
}

TemplateToken TemplateLexer::read_text(char quote) {
  TemplateToken token{TemplateToken::text, {}};
  for (++at_; at_ < source_.size() && source_[at_] != quote; ++at_) {
    char c = source_[at_];
    if (c == '\\') {
      if (++at_ >= source_.size()) break;
      constexpr std::string_view kNames = "nrt\\'\"", kMeant = "\n\r\t\\'\"";
      const size_t found = kNames.find(source_[at_]);
      if (found == std::string_view::npos)
        refuse(fmt::format("escape '\\{}' is not known", printable(source_.substr(at_, 1))));
      c = kMeant[found];
    }
    token.text_value += c;
  }
  if (at_ >= source_.size()) throw UserError::bad_file(where_, kNoQuote);
  ++at_;
  return token;
}

void check_template_source(std::string_view source, const std::string& where) {
  if (source.size() > kMaxTemplateSource)
    throw UserError::bad_file(
        where, fmt::format("template of {} bytes, expected {} at most", source.size(), kMaxTemplateSource));
}

size_t find_tag_end(std::string_view source, size_t from, std::string_view end, const std::string& where) {
  int braces = 0;
  for (size_t at = from; at < source.size(); ++at) {
    const char c = source[at];
    if (c == '\'' || c == '"') {
      for (++at; at < source.size() && source[at] != c; ++at)
        if (source[at] == '\\') ++at;
      if (at >= source.size()) throw UserError::bad_file(where, kNoQuote);
    } else if (braces == 0 && source.substr(at).starts_with(end)) {
      return at;
    } else if (c == '{') {
      ++braces;
    } else if (c == '}' && braces > 0) {
      --braces;
    }
  }
  return std::string_view::npos;
}

}  // namespace coppice
