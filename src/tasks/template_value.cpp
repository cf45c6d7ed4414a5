#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/tasks/python_text.h"
#include "src/tasks/template_calls.h"
#include "src/tasks/template_expression.h"
#include "src/tasks/text_template.h"

namespace coppice {
namespace {

using Node = TemplateNode;
using NodePtr = TemplateNodePtr;

constexpr int kMaxDepth = 64;
constexpr uint64_t kNodeBytes = 32;  // what a value takes beside its text

/// A position counted from either end; outside: the nearest end.
size_t clamp_position(const Json& position, size_t otherwise, size_t size) {
  if (position.is_null()) return otherwise;
  const auto at = position.get<int64_t>(), length = static_cast<int64_t>(size);
  return static_cast<size_t>(std::clamp<int64_t>(at < 0 ? at + length : at, 0, length));
}

/// Works an expression out over variables.
class Evaluator {
 public:
  Evaluator(TemplateScope& scope, const std::string& where) : scope_(scope), where_(where) {}

  Json value(const Node& node) {
    Json found = step_value(node);
    scope_.charge(found, where_);
    return found;
  }

 private:
  [[noreturn]] void refuse(const std::string& message) const { throw UserError::bad_file(where_, message); }

  Json step_value(const Node& node) {
    switch (node.step) {
      case Node::literal:
        return node.value;
      case Node::list:
        return list_of(node.parts);
      case Node::field:
        if (const Json* found = scope_.find(node.name)) return *found;
        if (scope_.strict()) refuse(fmt::format("no field '{}'", printable(node.name)));
        return undefined_value();
      case Node::member:
        return member(value(*node.parts[0]), value(*node.parts[1]), scope_.strict());
      case Node::slice:
        return slice(value(*node.parts[0]), node.value);
      case Node::function:
        return function_value(node, list_of(node.parts), scope_, where_);
      case Node::method:
      case Node::filter:
        return call(node);
      case Node::test:
        if (node.name.ends_with("defined")) return is_defined(*node.parts[0]) == (node.name == "defined");
        return passes_test(node.name, value(*node.parts[0]));
      case Node::join_text: {
        std::string text = text_of(value(*node.parts[0]), where_) + text_of(value(*node.parts[1]), where_);
        check_template_size(text.size(), where_);
        return text;
      }
      case Node::arithmetic:
        return arithmetic(node.name, value(*node.parts[0]), value(*node.parts[1]));
      case Node::compare:
        return compare(node.name, value(*node.parts[0]), value(*node.parts[1]));
      case Node::both:
      case Node::either: {
        Json left = value(*node.parts[0]);
        return is_true(left) == (node.step == Node::either) ? left : value(*node.parts[1]);
      }
      case Node::negate:
        return !is_true(value(*node.parts[0]));
      case Node::choose:
        return value(*node.parts[is_true(value(*node.parts[0])) ? 1 : 2]);
    }
    throw InternalError("a step without its case");
  }

  std::vector<Json> list_of(const std::vector<NodePtr>& parts) {
    std::vector<Json> values;
    for (const NodePtr& part : parts) values.push_back(value(*part));
    return values;
  }

  bool is_defined(const Node& node) {
    if (node.step == Node::field) return scope_.find(node.name) != nullptr;
    if (node.step != Node::member) return !value(node).is_discarded();
    return !member(value(*node.parts[0]), value(*node.parts[1]), /*strict=*/false).is_discarded();
  }

  Json member(const Json& on, const Json& key, bool strict) const {
    if (on.is_discarded()) refuse("a member of something that is not defined");
    if (key.is_string()) {
      const auto& name = key.get_ref<const std::string&>();
      if (on.is_object() && on.contains(name)) return on.at(name);
      if (strict) refuse(fmt::format("no field '{}' where one is asked for", printable(name)));
      return undefined_value();
    }
    if (!key.is_number_integer()) refuse("[] of neither a name nor a number");
    const auto at = key.get<int64_t>();
    const std::vector<std::string> letters =
        on.is_string() ? code_points(on.get_ref<const std::string&>()) : std::vector<std::string>();
    const auto size = static_cast<int64_t>(on.is_string() ? letters.size() : on.is_array() ? on.size() : 0);
    const int64_t index = at < 0 ? at + size : at;
    if (index < 0 || index >= size) {
      if (strict) refuse(fmt::format("[{}] of something with {} elements", at, size));
      return undefined_value();
    }
    if (on.is_string()) return letters[static_cast<size_t>(index)];
    return on.at(static_cast<size_t>(index));
  }

  Json slice(const Json& on, const Json& bounds) const {
    if (!on.is_string() && !on.is_array()) refuse("a slice of neither a text nor a list");
    const bool backwards = bounds[2] == -1;
    if (!(bounds[2].is_null() || bounds[2] == 1 || (backwards && bounds[0].is_null() && bounds[1].is_null())))
      refuse("a slice by steps, of which [::-1] alone is read");
    Json list = on.is_string() ? Json(code_points(on.get_ref<const std::string&>())) : on;
    const size_t from = clamp_position(bounds[0], 0, list.size()),
                 to = clamp_position(bounds[1], list.size(), list.size());
    list.erase(list.begin() + static_cast<std::ptrdiff_t>(std::max(from, to)), list.end());
    list.erase(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(from));
    if (backwards) std::ranges::reverse(list);
    if (!on.is_string()) return list;
    std::string text;
    for (const Json& letter : list) text += letter.get_ref<const std::string&>();
    return text;
  }

  Json call(const Node& node) {
    if (node.name == "default") {
      const bool defined = is_defined(*node.parts[0]);
      Json on = defined ? value(*node.parts[0]) : undefined_value();
      const bool also_false = node.parts.size() > 2 && is_true(value(*node.parts[2]));
      return defined && (!also_false || is_true(on)) ? on : value(*node.parts[1]);
    }
    return call_value(node.name, list_of(node.parts), where_);
  }

  Json arithmetic(const std::string& sign, const Json& left, const Json& right) const {
    if (sign == "+" && left.is_string() && right.is_string()) {
      check_template_size(left.get_ref<const std::string&>().size() + right.get_ref<const std::string&>().size(),
                          where_);
      return left.get_ref<const std::string&>() + right.get_ref<const std::string&>();
    }
    if (!left.is_number_integer() || !right.is_number_integer())
      refuse(sign == "+" ? "'+' takes two texts or two whole numbers"
                         : fmt::format("'{}' takes two whole numbers", sign));
    const auto a = left.get<int64_t>(), b = right.get<int64_t>();
    int64_t result = 0;
    if (sign == "%") {
      if (b <= 0) refuse("'%' takes a number above 0");
      return a % b < 0 ? a % b + b : a % b;  // as Python has it
    }
    if (sign == "+" ? __builtin_add_overflow(a, b, &result) : __builtin_sub_overflow(a, b, &result))
      refuse(fmt::format("'{}': too large", sign));
    return result;
  }

  Json compare(const std::string& sign, const Json& left, const Json& right) const {
    if (sign == "==") return left == right;
    if (sign == "!=") return !(left == right);
    if (sign == "in") return contains(right, left);
    if (!(left.is_number() && right.is_number()) && !(left.is_string() && right.is_string()))
      refuse(fmt::format("'{}' takes two numbers or two texts", sign));
    return sign == "<" ? left < right : sign == "<=" ? left <= right : sign == ">" ? left > right : left >= right;
  }

  bool contains(const Json& on, const Json& one) const {
    if (on.is_array()) return std::ranges::find(on, one) != on.end();
    if (!one.is_string() || !(on.is_string() || on.is_object())) refuse("'in' takes a text, a list or an object");
    const auto& text = one.get_ref<const std::string&>();
    return on.is_object() ? on.contains(text) : on.get_ref<const std::string&>().find(text) != std::string::npos;
  }

  TemplateScope& scope_;
  const std::string& where_;
};

/// Bytes of a value and all that it holds; above `most` as soon as that is known. -1: deeper than kMaxDepth.
int64_t bytes_of(const Json& value, int64_t most, int depth = 0) {
  if (depth > kMaxDepth) return -1;
  if (value.is_string()) return static_cast<int64_t>(value.get_ref<const std::string&>().size() + kNodeBytes);
  int64_t bytes = kNodeBytes;
  if (!value.is_structured()) return bytes;
  for (const Json& part : value) {
    const int64_t more = bytes_of(part, most - bytes, depth + 1);
    if (more < 0) return -1;
    if ((bytes += more) > most) break;
  }
  return bytes;
}

}  // namespace

const Json* TemplateScope::find(const std::string& name) const {
  for (auto frame = frames_.rbegin(); frame != frames_.rend(); ++frame)
    if (const auto found = frame->find(name); found != frame->end()) return &*found;
  const auto found = given_.find(name);
  return found == given_.end() ? nullptr : &*found;
}

Json* TemplateScope::find_own(const std::string& name) {
  for (auto frame = frames_.rbegin(); frame != frames_.rend(); ++frame)
    if (const auto found = frame->find(name); found != frame->end()) return &*found;
  return nullptr;
}

void TemplateScope::charge(const Json& value, const std::string& where) {
  if (budget_ == std::numeric_limits<uint64_t>::max()) return;
  const int64_t bytes = bytes_of(value, static_cast<int64_t>(budget_));
  if (bytes < 0) throw UserError::bad_file(where, fmt::format("a value nests deeper than {}", kMaxDepth));
  if (static_cast<uint64_t>(bytes) > budget_) throw UserError::bad_file(where, "the template takes too many steps");
  budget_ -= static_cast<uint64_t>(bytes);
}

bool is_true(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return value.is_structured() && !value.empty();
}

Json expression_value(const Node& node, TemplateScope& scope, const std::string& where) {
  return Evaluator(scope, where).value(node);
}

}  // namespace coppice
