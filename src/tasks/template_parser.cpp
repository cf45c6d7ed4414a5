// Operators as Jinja ranks them, the loosest first: if else; or; and; not; comparisons; + -; ~; %; then what stands
// behind a value: . [] | is.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <utility>

#include "src/base/errors.h"
#include "src/tasks/template_expression.h"
#include "src/tasks/template_lexer.h"

namespace coppice {
namespace {

using Node = TemplateNode;
using NodePtr = TemplateNodePtr;
using Token = TemplateToken;

constexpr int kMaxNesting = 32, kMaxNodes = 256;
constexpr std::string_view kNotRead = "is not part of the Jinja that coppice reads";

struct Call {
  std::string_view name;
  size_t least, most;  // arguments
};
constexpr size_t kAny = std::numeric_limits<size_t>::max();
constexpr std::array kFunctions = {Call{"namespace", 0, kAny}, Call{"range", 1, 2}, Call{"raise_exception", 1, 1},
                                   Call{"strftime_now", 1, 1}};
constexpr std::array kMethods = {Call{"strip", 0, 1},      Call{"lstrip", 0, 1},   Call{"rstrip", 0, 1},
                                 Call{"split", 1, 1},      Call{"lower", 0, 0},    Call{"upper", 0, 0},
                                 Call{"capitalize", 0, 0}, Call{"replace", 2, 2},  Call{"index", 1, 1},
                                 Call{"startswith", 1, 1}, Call{"endswith", 1, 1}, Call{"get", 1, 2}};
constexpr std::array kFilters = {Call{"join", 0, 1},       Call{"length", 0, 0},    Call{"trim", 0, 0},
                                 Call{"lower", 0, 0},      Call{"upper", 0, 0},     Call{"capitalize", 0, 0},
                                 Call{"replace", 2, 2},    Call{"string", 0, 0},    Call{"list", 0, 0},
                                 Call{"first", 0, 0},      Call{"last", 0, 0},      Call{"default", 1, 2},
                                 Call{"selectattr", 1, 3}, Call{"rejectattr", 1, 3}};
constexpr std::array<std::string_view, 12> kTests = {"defined",  "undefined", "none", "string", "number",  "mapping",
                                                     "sequence", "iterable",  "true", "false",  "boolean", "integer"};
constexpr std::array<std::string_view, 6> kComparisons = {"==", "!=", "<", "<=", ">", ">="};

class Parser {
 public:
  Parser(std::string_view source, const std::string& where) : lexer_(source, where) { next(); }

  NodePtr expression() {
    NodePtr node = conditional();
    expect_end();
    return node;
  }

  TemplateLoop loop() {
    TemplateLoop loop{.name = expect_name(), .over = nullptr, .condition = nullptr};
    if (!take_name("in")) refuse_token();
    loop.over = either();
    if (take_name("if")) loop.condition = either();
    expect_end();
    return loop;
  }

  TemplateAssignment assignment() {
    TemplateAssignment assignment{.name = expect_name(), .member = {}, .value = nullptr};
    if (take(".")) assignment.member = expect_name();
    expect("=");
    assignment.value = expression();
    return assignment;
  }

 private:
  [[noreturn]] void refuse_token() const {
    if (token_.kind == Token::end) lexer_.refuse("the expression ends where more was expected");
    lexer_.refuse(fmt::format("'{}' {}", printable(token_.text_value), kNotRead));
  }

  void next() { token_ = lexer_.next(); }
  bool at(std::string_view sign) const { return token_.kind == Token::sign && token_.text_value == sign; }
  bool at_name(std::string_view name) const { return token_.kind == Token::name && token_.text_value == name; }
  bool take(std::string_view sign) {
    if (!at(sign)) return false;
    next();
    return true;
  }
  bool take_name(std::string_view name) {
    if (!at_name(name)) return false;
    next();
    return true;
  }
  void expect(std::string_view sign) {
    if (!take(sign)) refuse_token();
  }
  void expect_end() const {
    if (token_.kind != Token::end) refuse_token();
  }
  std::string expect_name() {
    if (token_.kind != Token::name) refuse_token();
    std::string name = token_.text_value;
    next();
    return name;
  }

  NodePtr make(Node node) {
    if (++nodes_ > kMaxNodes) lexer_.refuse(fmt::format("an expression of more than {} parts", kMaxNodes));
    return std::make_shared<const Node>(std::move(node));
  }
  NodePtr make(Node::Step step, std::string name, std::vector<NodePtr> parts) {
    return make({step, {}, std::move(name), std::move(parts)});
  }
  NodePtr make_literal(Json value) { return make({Node::literal, std::move(value), {}, {}}); }

  NodePtr conditional() {
    if (++nesting_ > kMaxNesting) lexer_.refuse(fmt::format("nested deeper than {}", kMaxNesting));
    NodePtr node = either();
    if (take_name("if")) {
      NodePtr condition = either();
      NodePtr otherwise = take_name("else") ? conditional() : make_literal(undefined_value());
      node = make(Node::choose, {}, {condition, node, otherwise});
    }
    --nesting_;
    return node;
  }

  NodePtr either() {
    NodePtr node = both();
    while (take_name("or")) node = make(Node::either, {}, {node, both()});
    return node;
  }

  NodePtr both() {
    NodePtr node = negated();
    while (take_name("and")) node = make(Node::both, {}, {node, negated()});
    return node;
  }

  NodePtr negated() {
    bool odd = false;
    while (take_name("not")) odd = !odd;
    NodePtr node = comparison();
    return odd ? make(Node::negate, {}, {node}) : node;
  }

  NodePtr comparison() {
    NodePtr node = sum();
    if (token_.kind == Token::sign && std::ranges::find(kComparisons, token_.text_value) != kComparisons.end()) {
      const std::string sign = token_.text_value;
      next();
      return make(Node::compare, sign, {node, sum()});
    }
    if (take_name("in")) return make(Node::compare, "in", {node, sum()});
    if (at_name("not")) {
      next();
      if (!take_name("in")) refuse_token();
      return make(Node::negate, {}, {make(Node::compare, "in", {node, sum()})});
    }
    return node;
  }

  NodePtr sum() {
    NodePtr node = joined();
    while (at("+") || at("-")) {
      const std::string sign = token_.text_value;
      next();
      node = make(Node::arithmetic, sign, {node, joined()});
    }
    return node;
  }

  NodePtr joined() {
    NodePtr node = remainder();
    while (take("~")) node = make(Node::join_text, {}, {node, remainder()});
    return node;
  }

  NodePtr remainder() {
    NodePtr node = postfix();
    while (take("%")) node = make(Node::arithmetic, "%", {node, postfix()});
    return node;
  }

  /// What stands in the parentheses of a call, the names of x=y beside it.
  std::vector<NodePtr> arguments(Json& names) {
    std::vector<NodePtr> found;
    if (!take("(") || take(")")) return found;
    do {
      NodePtr value = conditional();
      if (at("=") && value->step == Node::field) {
        names.push_back(value->name);
        next();
        value = conditional();
      }
      found.push_back(std::move(value));
    } while (take(","));
    expect(")");
    return found;
  }

  NodePtr call(Node::Step step, std::string_view kind, const std::string& name, const NodePtr& on,
               std::span<const Call> known) {
    const auto row = std::ranges::find(known, name, &Call::name);
    if (row == known.end()) lexer_.refuse(fmt::format("{} '{}' {}", kind, printable(name), kNotRead));
    Json names = Json::array();
    std::vector<NodePtr> parts = arguments(names);
    if (parts.size() < row->least || parts.size() > row->most)
      lexer_.refuse(fmt::format(
          "{} '{}' takes {} arguments here, got {}", kind, name,
          row->least == row->most ? fmt::format("{}", row->least) : fmt::format("{} to {}", row->least, row->most),
          parts.size()));
    if (names.size() != (row->most == kAny ? parts.size() : 0))
      lexer_.refuse(fmt::format("arguments of {} '{}' by another form of call than is read", kind, name));
    if (on) parts.insert(parts.begin(), on);
    return make({step, std::move(names), name, std::move(parts)});
  }

  NodePtr postfix() {
    NodePtr node = primary();
    for (int steps = 0;; ++steps) {
      if (steps > kMaxNesting) lexer_.refuse(fmt::format("more than {} steps in a row", kMaxNesting));
      if (take(".")) {
        const std::string name = expect_name();
        node = at("(") ? call(Node::method, "method", name, node, kMethods)
                       : make(Node::member, {}, {node, make_literal(name)});
      } else if (take("|")) {
        node = call(Node::filter, "filter", expect_name(), node, kFilters);
      } else if (take("[")) {
        node = subscript(node);
      } else if (take_name("is")) {
        node = test(node);
      } else {
        return node;
      }
    }
  }

  NodePtr test(const NodePtr& on) {
    const bool negated = take_name("not");
    const std::string name = expect_name();
    if (std::ranges::find(kTests, name) == kTests.end())
      lexer_.refuse(fmt::format("test '{}' {}", printable(name), kNotRead));
    NodePtr node = make(Node::test, name, {on});
    return negated ? make(Node::negate, {}, {node}) : node;
  }

  NodePtr subscript(const NodePtr& on) {
    if (at("]")) lexer_.refuse("an empty index");
    const NodePtr from = at(":") ? nullptr : conditional();
    if (from && take("]")) return make(Node::member, {}, {on, from});
    Json bounds = Json::array({bound_of(from), nullptr, nullptr});
    for (size_t i = 1; i < 3 && take(":"); ++i)
      if (!at(":") && !at("]")) bounds[i] = bound_of(conditional());
    expect("]");
    return make({Node::slice, std::move(bounds), {}, {on}});
  }

  Json bound_of(const NodePtr& node) const {
    if (!node) return nullptr;
    if (node->step != Node::literal || !node->value.is_number_integer()) lexer_.refuse("a slice takes numbers");
    return node->value;
  }

  NodePtr primary() {
    if (token_.kind == Token::text || token_.kind == Token::number) {
      Json value = token_.kind == Token::text ? Json(token_.text_value) : Json(token_.number_value);
      next();
      return make_literal(std::move(value));
    }
    if (take("-")) {
      if (token_.kind != Token::number) refuse_token();
      Json value = -token_.number_value;
      next();
      return make_literal(std::move(value));
    }
    if (take("(")) {
      NodePtr node = conditional();
      expect(")");
      return node;
    }
    if (take("[")) {
      Node list{Node::list, {}, {}, {}};
      if (!take("]")) {
        do list.parts.push_back(conditional());
        while (take(","));
        expect("]");
      }
      return make(std::move(list));
    }
    const std::string name = expect_name();
    constexpr std::array<std::pair<std::string_view, int>, 6> kConstants{
        {{"true", 1}, {"True", 1}, {"false", 0}, {"False", 0}, {"none", -1}, {"None", -1}}};
    for (const auto& [constant, value] : kConstants)
      if (name == constant) return make_literal(value < 0 ? Json() : Json(value == 1));
    if (at("(")) return call(Node::function, "function", name, nullptr, kFunctions);
    return make(Node::field, name, {});
  }

  TemplateLexer lexer_;
  Token token_;
  int nesting_ = 0, nodes_ = 0;
};

}  // namespace

NodePtr parse_expression(std::string_view source, const std::string& where) {
  return Parser(source, where).expression();
}

TemplateLoop parse_loop(std::string_view source, const std::string& where) { return Parser(source, where).loop(); }

TemplateAssignment parse_assignment(std::string_view source, const std::string& where) {
  return Parser(source, where).assignment();
}

}  // namespace coppice
