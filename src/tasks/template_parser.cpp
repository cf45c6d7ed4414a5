#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <span>
#include <utility>

#include "src/base/errors.h"
#include "src/tasks/template_expression.h"

namespace coppice {
namespace {

using Node = TemplateNode;
using NodePtr = std::shared_ptr<const Node>;

constexpr int kMaxNesting = 32, kMaxNodes = 256;
constexpr std::string_view kPunctuation = ".,()[]|+~:";

struct Call {
  std::string_view name;
  size_t arguments;
};
constexpr std::array kMethods = {Call{"strip", 0}, Call{"lstrip", 0},     Call{"rstrip", 0},  Call{"split", 1},
                                 Call{"lower", 0}, Call{"capitalize", 0}, Call{"replace", 2}, Call{"index", 1}};
constexpr std::array kFilters = {Call{"join", 1}, Call{"length", 0}, Call{"trim", 0}, Call{"lower", 0},
                                 Call{"replace", 2}};

struct Token {
  enum Kind { name, text, number, punctuation, end } kind = end;
  std::string text_value;
  int64_t number_value = 0;
};

bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool is_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

/// Reads one expression, from behind "{{" to before "}}".
class Parser {
 public:
  Parser(std::string_view source, size_t begin, const std::string& where) : source_(source), at_(begin), where_(where) {
    next();
  }

  NodePtr whole() {
    NodePtr node = conditional();
    if (token_.kind != Token::end) refuse_token();
    return node;
  }
  size_t end() const { return at_; }  // behind "}}"

 private:
  [[noreturn]] void refuse(const std::string& message) const {
    throw UserError::bad_file(where_, fmt::format("template: {}", message));
  }
  [[noreturn]] void refuse_token() const {
    if (token_.kind == Token::end) refuse("the expression ends where more was expected");
    refuse(fmt::format("'{}' is not part of the Jinja that coppice reads", printable(token_.text_value)));
  }

  void next() {
    while (at_ < source_.size() && std::isspace(static_cast<unsigned char>(source_[at_])) != 0) ++at_;
    if (at_ >= source_.size()) refuse("'{{' without '}}'");
    const char c = source_[at_];
    const std::string_view rest = source_.substr(at_);
    if (rest.starts_with("}}")) {
      at_ += 2;
      token_ = {};
    } else if (is_name_start(c)) {
      const auto stop = std::ranges::find_if_not(rest, is_name) - rest.begin();
      token_ = {Token::name, std::string(rest.substr(0, static_cast<size_t>(stop)))};
      at_ += static_cast<size_t>(stop);
    } else if (std::isdigit(static_cast<unsigned char>(c)) != 0 ||
               (c == '-' && rest.size() > 1 && std::isdigit(static_cast<unsigned char>(rest[1])) != 0)) {
      token_ = {Token::number, {}};
      const auto [stop, error] = std::from_chars(rest.data(), rest.data() + rest.size(), token_.number_value);
      if (error != std::errc()) refuse("a number is too large");
      token_.text_value = std::string(rest.data(), stop);
      at_ += token_.text_value.size();
    } else if (c == '\'' || c == '"') {
      read_text(c);
    } else {
      token_ = {Token::punctuation, std::string(1, c)};
      if (kPunctuation.find(c) == std::string_view::npos) refuse_token();
      ++at_;
    }
  }

  void read_text(char quote) {
    token_ = {Token::text, {}};
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
      token_.text_value += c;
    }
    if (at_ >= source_.size()) refuse("a text without its closing quote");
    ++at_;
  }

  bool at(std::string_view punctuation) const {
    return token_.kind == Token::punctuation && token_.text_value == punctuation;
  }
  bool at_name(std::string_view name) const { return token_.kind == Token::name && token_.text_value == name; }
  bool take(std::string_view punctuation) {
    if (!at(punctuation)) return false;
    next();
    return true;
  }
  void expect(std::string_view punctuation) {
    if (!take(punctuation)) refuse_token();
  }
  std::string expect_name() {
    if (token_.kind != Token::name) refuse_token();
    std::string name = token_.text_value;
    next();
    return name;
  }

  NodePtr make(Node node) {
    if (++nodes_ > kMaxNodes) refuse(fmt::format("an expression of more than {} parts", kMaxNodes));
    return std::make_shared<const Node>(std::move(node));
  }

  NodePtr conditional() {
    if (++nesting_ > kMaxNesting) refuse(fmt::format("nested deeper than {}", kMaxNesting));
    NodePtr node = sum();
    if (at_name("if")) {
      next();
      NodePtr tested = sum();
      if (!at_name("is")) refuse("'if' is read with 'is defined' alone");
      next();
      if (!at_name("defined")) refuse_token();
      next();
      if (!at_name("else")) refuse_token();
      next();
      node =
          make({TemplateNode::choose, {}, {}, {make({TemplateNode::defined, {}, {}, {tested}}), node, conditional()}});
    }
    --nesting_;
    return node;
  }

  NodePtr sum() {
    NodePtr node = postfix();
    while (at("+") || at("~")) {
      const TemplateNode::Step step = at("+") ? TemplateNode::add : TemplateNode::join_text;
      next();
      node = make({step, {}, {}, {node, postfix()}});
    }
    return node;
  }

  std::vector<NodePtr> arguments() {
    std::vector<NodePtr> found;
    if (!take("(") || take(")")) return found;
    do found.push_back(conditional());
    while (take(","));
    expect(")");
    return found;
  }

  NodePtr call(TemplateNode::Step step, std::string_view kind, const std::string& name, NodePtr on,
               std::span<const Call> known) {
    const auto row = std::ranges::find(known, name, &Call::name);
    if (row == known.end()) refuse(fmt::format("{} '{}' is not part of the Jinja that coppice reads", kind, name));
    std::vector<NodePtr> parts = arguments();
    if (parts.size() != row->arguments)
      refuse(fmt::format("{} '{}' takes {} arguments here, got {}", kind, name, row->arguments, parts.size()));
    parts.insert(parts.begin(), std::move(on));
    return make({step, {}, name, std::move(parts)});
  }

  NodePtr postfix() {
    NodePtr node = primary();
    for (int steps = 0;; ++steps) {
      if (steps > kMaxNesting) refuse(fmt::format("more than {} steps in a row", kMaxNesting));
      if (take(".")) {
        const std::string name = expect_name();
        node = at("(") ? call(TemplateNode::method, "method", name, node, kMethods)
                       : make({TemplateNode::member, name, {}, {node}});
      } else if (take("|")) {
        node = call(TemplateNode::filter, "filter", expect_name(), node, kFilters);
      } else if (take("[")) {
        node = subscript(node);
      } else {
        return node;
      }
    }
  }

  NodePtr subscript(const NodePtr& on) {
    Json from = bound();
    if (take("]")) {
      if (from.is_null()) refuse("an empty index");
      return make({TemplateNode::member, from, {}, {on}});
    }
    expect(":");
    Json to = bound();
    expect("]");
    if (from.is_string() || to.is_string()) refuse("a slice takes numbers");
    return make({TemplateNode::slice, Json::array({from, to}), {}, {on}});
  }

  Json bound() {
    Json found;
    if (token_.kind == Token::number) found = token_.number_value;
    if (token_.kind == Token::text) found = token_.text_value;
    if (!found.is_null()) next();
    return found;
  }

  NodePtr primary() {
    if (token_.kind == Token::text || token_.kind == Token::number) {
      Json value = token_.kind == Token::text ? Json(token_.text_value) : Json(token_.number_value);
      next();
      return make({TemplateNode::literal, std::move(value), {}, {}});
    }
    if (take("(")) {
      NodePtr node = conditional();
      expect(")");
      return node;
    }
    if (take("[")) {
      Node list{TemplateNode::list, {}, {}, {}};
      if (!take("]")) {
        do list.parts.push_back(conditional());
        while (take(","));
        expect("]");
      }
      return make(std::move(list));
    }
    return make({TemplateNode::field, {}, expect_name(), {}});
  }

  std::string_view source_;
  size_t at_;
  const std::string& where_;
  Token token_;
  int nesting_ = 0, nodes_ = 0;
};

}  // namespace

NodePtr parse_expression(std::string_view source, size_t& at, const std::string& where) {
  Parser parser(source, at, where);
  NodePtr node = parser.whole();
  at = parser.end();
  return node;
}

}  // namespace coppice
