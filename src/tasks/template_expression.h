// What stands between {{ and }} of a template, or behind the word of a {% %} (text_template.h, chat_template.h): read
// into nodes, and worked out over variables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/json.h"

namespace coppice {

inline constexpr size_t kMaxTemplateSource = size_t{64} << 10;  // bytes of a template
inline constexpr size_t kMaxTemplateText = size_t{64} << 20;    // bytes that a template may give

struct TemplateNode {
  enum Step {
    literal,
    list,
    field,
    member,
    slice,
    function,
    method,
    filter,
    test,
    join_text,
    arithmetic,
    compare,
    both,
    either,
    negate,
    choose
  } step = literal;
  Json value = {};        // literal; slice: [from, to, step], null = open; function: the names of its arguments
  std::string name = {};  // field, function, method, filter, test; the sign of arithmetic and compare
  std::vector<std::shared_ptr<const TemplateNode>> parts = {};
};
using TemplateNodePtr = std::shared_ptr<const TemplateNode>;

/// Reads a whole text as one expression. UserError::bad_file at `where` for what is outside the part of Jinja that is
/// read, here and below.
TemplateNodePtr parse_expression(std::string_view source, const std::string& where);

/// "x in y" and "x in y if z" of a for.
struct TemplateLoop {
  std::string name;
  TemplateNodePtr over, condition;  // no condition: nullptr
};
TemplateLoop parse_loop(std::string_view source, const std::string& where);

/// "x = y" and "x.z = y" of a set.
struct TemplateAssignment {
  std::string name, member;  // no member: empty
  TemplateNodePtr value;
};
TemplateAssignment parse_assignment(std::string_view source, const std::string& where);

/// The value of a name or member that is not there; it is neither equal to another nor true.
inline Json undefined_value() { return Json(Json::value_t::discarded); }

/// Variables, and what an expression may cost.
class TemplateScope {
 public:
  /// `given`: an object that outlives this. `strict`: a name or member that is not there is refused; otherwise it is
  /// undefined, as Jinja has it. `budget`: bytes that all values on the way may have together.
  TemplateScope(const Json& given, bool strict, uint64_t budget = std::numeric_limits<uint64_t>::max())
      : given_(given), strict_(strict), budget_(budget) {}

  const Json* find(const std::string& name) const;
  /// Of a variable that set() made; nullptr otherwise.
  Json* find_own(const std::string& name);
  void set(const std::string& name, Json value) { frames_.back()[name] = std::move(value); }
  /// What is set in between is forgotten.
  void enter() { frames_.push_back(Json::object()); }
  void leave() { frames_.pop_back(); }

  bool strict() const { return strict_; }
  std::tm now = {};  // what strftime_now() says
  /// Takes the bytes of a value from the budget. UserError::bad_file at `where` when it is used up, or the value nests
  /// deeper than 64.
  void charge(const Json& value, const std::string& where);

 private:
  const Json& given_;
  bool strict_;
  uint64_t budget_;
  std::vector<Json> frames_{Json::object()};
};

/// The expression's value. UserError::bad_file at `where`.
Json expression_value(const TemplateNode& node, TemplateScope& scope, const std::string& where);

/// Whether Python takes a value for true.
bool is_true(const Json& value);

}  // namespace coppice
