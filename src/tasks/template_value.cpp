#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/tasks/pattern.h"
#include "src/tasks/python_text.h"
#include "src/tasks/template_expression.h"
#include "src/tasks/text_template.h"

namespace coppice {
namespace {

using Node = TemplateNode;
using NodePtr = std::shared_ptr<const Node>;

/// A position counted from either end; outside: the nearest end.
size_t clamp_position(const Json& position, size_t otherwise, size_t size) {
  if (position.is_null()) return otherwise;
  const auto at = position.get<int64_t>(), length = static_cast<int64_t>(size);
  return static_cast<size_t>(std::clamp<int64_t>(at < 0 ? at + length : at, 0, length));
}

/// Works an expression out over one document.
class Evaluator {
 public:
  Evaluator(const Json& document, const std::string& where) : document_(document), where_(where) {}

  Json value(const Node& node) const {
    switch (node.step) {
      case TemplateNode::literal:
        return node.value;
      case TemplateNode::list: {
        Json list = Json::array();
        for (const NodePtr& part : node.parts) list.push_back(value(*part));
        return list;
      }
      case TemplateNode::field:
        if (!document_.contains(node.name)) refuse(fmt::format("no field '{}'", printable(node.name)));
        return document_.at(node.name);
      case TemplateNode::member:
        return member(value(*node.parts[0]), node.value);
      case TemplateNode::slice:
        return slice(value(*node.parts[0]), node.value);
      case TemplateNode::method:
      case TemplateNode::filter:
        return call(node);
      case TemplateNode::add: {
        const Json left = value(*node.parts[0]), right = value(*node.parts[1]);
        if (left.is_string() && right.is_string()) return left.get<std::string>() + right.get<std::string>();
        if (left.is_number_integer() && right.is_number_integer()) {
          int64_t sum = 0;
          if (__builtin_add_overflow(left.get<int64_t>(), right.get<int64_t>(), &sum)) refuse("'+': too large");
          return sum;
        }
        refuse("'+' takes two texts or two whole numbers");
      }
      case TemplateNode::join_text:
        return text_of(value(*node.parts[0]), where_) + text_of(value(*node.parts[1]), where_);
      case TemplateNode::choose:
        return value(*node.parts[value(*node.parts[0]).get<bool>() ? 1 : 2]);
      case TemplateNode::defined:
        return node.parts[0]->step != TemplateNode::field || document_.contains(node.parts[0]->name);
    }
    throw InternalError("a step without its case");
  }

 private:
  [[noreturn]] void refuse(const std::string& message) const { throw UserError::bad_file(where_, message); }

  void check_size(size_t bytes) const {
    if (bytes > kMaxTemplateText) refuse(fmt::format("a template gives more than {} bytes", kMaxTemplateText));
  }

  Json member(const Json& on, const Json& key) const {
    if (key.is_string()) {
      const auto& name = key.get_ref<const std::string&>();
      if (!on.is_object() || !on.contains(name))
        refuse(fmt::format("no field '{}' where one is asked for", printable(name)));
      return on.at(name);
    }
    const auto at = key.get<int64_t>();
    const std::vector<std::string> letters =
        on.is_string() ? code_points(on.get_ref<const std::string&>()) : std::vector<std::string>();
    const auto size = static_cast<int64_t>(on.is_string() ? letters.size() : on.is_array() ? on.size() : 0);
    const int64_t index = at < 0 ? at + size : at;
    if (index < 0 || index >= size) refuse(fmt::format("[{}] of something with {} elements", at, size));
    if (on.is_string()) return letters[static_cast<size_t>(index)];
    return on.at(static_cast<size_t>(index));
  }

  Json slice(const Json& on, const Json& bounds) const {
    if (!on.is_string() && !on.is_array()) refuse("a slice of neither a text nor a list");
    const std::vector<std::string> letters =
        on.is_string() ? code_points(on.get_ref<const std::string&>()) : std::vector<std::string>();
    const size_t size = on.is_string() ? letters.size() : on.size();
    const size_t from = clamp_position(bounds[0], 0, size), to = clamp_position(bounds[1], size, size);
    Json list = Json::array();
    std::string text;
    for (size_t i = from; i < to; ++i) {
      if (on.is_string())
        text += letters[i];
      else
        list.push_back(on[i]);
    }
    return on.is_string() ? Json(text) : list;
  }

  std::string text_argument(const Node& node, size_t i) const {
    Json argument = value(*node.parts[i]);
    if (!argument.is_string()) refuse(fmt::format("'{}' expects a text", node.name));
    return argument.get<std::string>();
  }

  Json call(const Node& node) const {
    const Json on = value(*node.parts[0]);
    const std::string& name = node.name;
    if (name == "index") {
      const Json wanted = value(*node.parts[1]);
      const auto found = on.is_array() ? std::ranges::find(on, wanted) : on.end();
      if (!on.is_array() || found == on.end())
        refuse(fmt::format("'index': {} is not in the list",
                           printable(wanted.dump(-1, ' ', false, Json::error_handler_t::replace))));
      return found - on.begin();
    }
    if (name == "join") {
      if (!on.is_array()) refuse("'join' expects a list");
      std::string text;
      for (size_t i = 0; i < on.size(); ++i) {
        text += (i == 0 ? "" : text_argument(node, 1)) + text_of(on[i], where_);
        check_size(text.size());
      }
      return text;
    }
    if (name == "length" && on.is_array()) return on.size();
    if (!on.is_string()) refuse(fmt::format("'{}' expects a text", name));
    const auto& text = on.get_ref<const std::string&>();
    if (name == "length") return count_code_points(text);
    if (name == "strip" || name == "trim") return strip(text);
    if (name == "lstrip") return strip_left(text);
    if (name == "rstrip") return strip_right(text);
    if (name == "lower") return lower_case(text);
    if (name == "capitalize") return capitalized(text);
    const std::string first = text_argument(node, 1);
    if (first.empty()) refuse(fmt::format("'{}': an empty separator", name));
    if (name == "split") return split_text(text, first);
    const std::string to = text_argument(node, 2);
    check_size(text.size() + text.size() / first.size() * to.size());
    return replace_all(text, first, to);
  }

  const Json& document_;
  const std::string& where_;
};

}  // namespace

Json expression_value(const Node& node, const Json& document, const std::string& where) {
  return Evaluator(document, where).value(node);
}

}  // namespace coppice
