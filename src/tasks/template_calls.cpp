#include "src/tasks/template_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "src/base/errors.h"
#include "src/tasks/pattern.h"
#include "src/tasks/python_text.h"
#include "src/tasks/text_template.h"
#include "src/text/text_encoding.h"

namespace coppice {
namespace {

constexpr int64_t kMaxRange = 10'000;

[[noreturn]] void refuse(const std::string& where, const std::string& message) {
  throw UserError::bad_file(where, message);
}

const std::string& text_at(const std::vector<Json>& values, size_t i, const std::string& name,
                           const std::string& where) {
  if (!values[i].is_string()) refuse(where, fmt::format("'{}' expects a text", name));
  return values[i].get_ref<const std::string&>();
}

Json range(const std::vector<Json>& arguments, const std::string& where) {
  for (const Json& argument : arguments)
    if (!argument.is_number_integer()) refuse(where, "'range' expects whole numbers");
  const int64_t from = arguments.size() == 1 ? 0 : arguments[0].get<int64_t>(), to = arguments.back().get<int64_t>();
  if (from < -kMaxRange || to > kMaxRange)
    refuse(where, fmt::format("'range' from {} to {}, expected {} at most", from, to, kMaxRange));
  Json list = Json::array();
  for (int64_t i = from; i < to; ++i) list.push_back(i);
  return list;
}

std::string formatted_time(const std::string& format, const std::tm& now, const std::string& where) {
  std::array<char, 512> text{};
  if (format.size() > 64 || format.empty() || std::strftime(text.data(), text.size(), format.c_str(), &now) == 0)
    refuse(where, fmt::format("'strftime_now': got '{}', expected a short format", printable(format.substr(0, 64))));
  return text.data();
}

/// str.strip() and its like, of white space or of one-byte characters.
std::string stripped(const std::string& name, const std::vector<Json>& values, const std::string& where) {
  std::string_view text = text_at(values, 0, name, where);
  const bool left = name != "rstrip", right = name != "lstrip";
  if (values.size() == 1) return std::string(left && right ? strip(text) : left ? strip_left(text) : strip_right(text));
  const std::string& characters = text_at(values, 1, name, where);
  if (std::ranges::any_of(characters, [](char c) { return static_cast<unsigned char>(c) >= 0x80; }))
    refuse(where, fmt::format("'{}' of characters beyond ASCII", name));
  if (left) text.remove_prefix(std::min(text.size(), text.find_first_not_of(characters)));
  if (right) text.remove_suffix(text.size() - (text.find_last_not_of(characters) + 1));
  return std::string(text);
}

/// selectattr and rejectattr: elements whose member is true, passes a test, or equals a value.
Json selected(const std::vector<Json>& values, bool wanted, const std::string& where) {
  const std::string& member = text_at(values, 1, "selectattr", where);
  const std::string test = values.size() > 2 ? text_at(values, 2, "selectattr", where) : "";
  const bool equal = values.size() == 4;
  if (!values[0].is_array() || equal != (test == "equalto" || test == "eq" || test == "=="))
    refuse(where, "'selectattr' expects a list, a member, and a test: equalto with a value, or one without");
  Json list = Json::array();
  for (const Json& element : values[0]) {
    const bool has = element.is_object() && element.contains(member);
    const Json value = has ? element.at(member) : undefined_value();
    const bool passes = equal                                      ? value == values[3]
                        : test.empty()                             ? is_true(value)
                        : test == "defined" || test == "undefined" ? has == (test == "defined")
                                                                   : passes_test(test, value);
    if (passes == wanted) list.push_back(element);
  }
  return list;
}

Json of_list(const std::string& name, const std::vector<Json>& values, const std::string& where) {
  const Json& list = values[0];
  if (name == "list") return list;
  if (name == "length") return list.size();
  if (name == "first" || name == "last")
    return list.empty() ? undefined_value() : name == "first" ? list.front() : list.back();
  if (name == "index") {
    const auto found = std::ranges::find(list, values[1]);
    if (found == list.end())
      refuse(where, fmt::format("'index': {} is not in the list",
                                printable(values[1].dump(-1, ' ', false, Json::error_handler_t::replace))));
    return found - list.begin();
  }
  if (name != "join") refuse(where, fmt::format("'{}' expects a text", name));
  const std::string between = values.size() > 1 ? text_at(values, 1, name, where) : "";
  std::string text;
  for (size_t i = 0; i < list.size(); ++i) {
    text += (i == 0 ? "" : between) + text_of(list[i], where);
    check_template_size(text.size(), where);
  }
  return text;
}

Json of_text(const std::string& name, const std::vector<Json>& values, const std::string& where) {
  const std::string& text = text_at(values, 0, name, where);
  if (name == "length") return count_code_points(text);
  if (name == "trim" || name.ends_with("strip")) return stripped(name, values, where);
  if (name == "lower") return lower_case(text);
  if (name == "upper") return upper_case(text);
  if (name == "capitalize") return capitalized(text);
  if (name == "list" || name == "first" || name == "last") {
    Json letters = code_points(text);
    return name == "list" ? letters : of_list(name, {letters}, where);
  }
  const std::string& first = text_at(values, 1, name, where);
  if (name == "startswith") return text.starts_with(first);
  if (name == "endswith") return text.ends_with(first);
  if (first.empty()) refuse(where, fmt::format("'{}': an empty separator", name));
  if (name == "split") return split_text(text, first);
  const std::string& to = text_at(values, 2, name, where);
  check_template_size(text.size() + text.size() / first.size() * to.size(), where);
  return replace_all(text, first, to);
}

}  // namespace

void check_template_size(size_t bytes, const std::string& where) {
  if (bytes > kMaxTemplateText) refuse(where, fmt::format("a template gives more than {} bytes", kMaxTemplateText));
}

Json function_value(const TemplateNode& node, const std::vector<Json>& arguments, const TemplateScope& scope,
                    const std::string& where) {
  if (node.name == "range") return range(arguments, where);
  if (node.name == "namespace") {
    Json members = Json::object();
    for (size_t i = 0; i < arguments.size(); ++i) members[node.value[i].get<std::string>()] = arguments[i];
    return members;
  }
  const std::string& text = text_at(arguments, 0, node.name, where);
  if (node.name == "strftime_now") return formatted_time(text, scope.now, where);
  refuse(where, fmt::format("the template refuses: {}", printable(text.substr(0, 200))));
}

Json call_value(const std::string& name, const std::vector<Json>& values, const std::string& where) {
  const Json& on = values[0];
  if (name == "string") return text_of(on, where);
  if (name == "selectattr" || name == "rejectattr") return selected(values, name == "selectattr", where);
  if (name == "get") {
    if (!on.is_object()) refuse(where, "'get' of something without members");
    const std::string& key = text_at(values, 1, name, where);
    return on.contains(key) ? on.at(key) : values.size() > 2 ? values[2] : Json();
  }
  if (name == "length" && on.is_object()) return on.size();
  if (on.is_array() && name != "replace") return of_list(name, values, where);
  if (name == "join") refuse(where, "'join' expects a list");
  if (name == "index") refuse(where, "'index' expects a list");
  return of_text(name, values, where);
}

bool passes_test(const std::string& name, const Json& value) {
  if (name == "none") return value.is_null();
  if (name == "string") return value.is_string();
  if (name == "number") return value.is_number() || value.is_boolean();
  if (name == "integer") return value.is_number_integer();
  if (name == "boolean") return value.is_boolean();
  if (name == "true" || name == "false") return value.is_boolean() && value.get<bool>() == (name == "true");
  if (name == "mapping") return value.is_object();
  return value.is_string() || value.is_array() || value.is_object();  // sequence, iterable
}

}  // namespace coppice
