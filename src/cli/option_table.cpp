// Reading options: every take() registers its key, checks the type, and remembers the value in force for the resolved
// recipe.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/base/errors.h"
#include "src/base/nearest.h"
#include "src/cli/option_node.h"

namespace coppice {

using Kind = OptionValue::Kind;
using Node = OptionTable::Node;

static std::string to_toml(bool value) { return value ? "true" : "false"; }
static std::string to_toml(int64_t value) { return fmt::format("{}", value); }
static std::string to_toml(int value) { return fmt::format("{}", value); }
static std::string to_toml(uint64_t value) {
  COPPICE_CHECK(value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()),
                "TOML has no integers above 2^63 - 1");
  return fmt::format("{}", value);
}
template <class Element>
static std::string to_toml(const std::vector<Element>& values) {
  std::string text = "[";
  for (const Element& value : values) {
    if (text.size() > 1) text += ", ";
    text += to_toml(value);
  }
  return text + "]";
}

namespace {

/// The one body of all take(): `convert` gives std::nullopt for a value of the wrong type or outside its range.
template <class Value, class Convert>
void take_value(Node& node, std::string_view key, Value& value, std::string_view help, std::string_view expected,
                Convert convert) {
  const bool is_first = node.find_known(key) == nullptr;  // a later take finds the value of the first one
  Node::Known& known = node.know(key);
  if (is_first) known.origin = node.default_origin;
  if (const Node::Entry* entry = node.find(key)) {
    const std::optional<Value> converted = convert(entry->value);
    if (!converted)
      throw UserError::recipe(
          entry->where, fmt::format("{}: got {}, expected {}{}", node.full_name(key), describe(entry->value), expected,
                                    help.empty() ? "" : fmt::format(" ({})", help)));
    value = *converted;
    known.origin = entry->where;
    known.given = true;
  }
  known.kind = Kind::boolean;
  known.text = to_toml(value);
}

template <class Value>
std::optional<Value> integer_in_range(const OptionValue& value) {
  if (value.kind != Kind::integer || !std::in_range<Value>(value.integer)) return std::nullopt;
  return static_cast<Value>(value.integer);
}

std::optional<double> number_of(const OptionValue& value) {
  if (value.kind == Kind::integer) return static_cast<double>(value.integer);
  return value.kind == Kind::number ? std::optional(value.number) : std::nullopt;
}

std::optional<int64_t> whole_number(const OptionValue& value) {
  if (value.kind == Kind::integer) return value.integer;
  if (value.kind != Kind::number || std::trunc(value.number) != value.number || std::abs(value.number) > 0x1p62)
    return std::nullopt;
  return static_cast<int64_t>(value.number);
}

template <class Element, class Convert>
std::optional<std::vector<Element>> all_of(const OptionValue& value, Convert convert) {
  if (value.kind != Kind::array) return std::nullopt;
  std::vector<Element> elements;
  for (const OptionValue& element : value.elements) {
    const std::optional<Element> converted = convert(element);
    if (!converted) return std::nullopt;
    elements.push_back(*converted);
  }
  return elements;
}

std::optional<std::string> string_of(const OptionValue& value) {
  return value.kind == Kind::string ? std::optional(value.text) : std::nullopt;
}

}  // namespace

Node::Entry* Node::find(std::string_view key) {
  const auto found = std::ranges::find(entries, key, &Entry::key);
  return found == entries.end() ? nullptr : &*found;
}
Node::Known* Node::find_known(std::string_view key) {
  const auto found = std::ranges::find(known, key, &Known::key);
  return found == known.end() ? nullptr : &*found;
}
Node::Known& Node::know(std::string_view key) {
  if (Known* found = find_known(key)) return *found;
  return known.emplace_back(Known{.key = std::string(key)});
}

OptionTable::OptionTable(std::shared_ptr<Node> node) : node_(std::move(node)) {}

std::string OptionTable::where() const { return node_->where; }
std::string OptionTable::where(std::string_view key) const {
  const Node::Entry* entry = node_->find(key);
  return entry ? entry->where : node_->where;
}
bool OptionTable::has(std::string_view key) const { return node_->find(key) != nullptr; }
void OptionTable::call_defaults(std::string origin) { node_->default_origin = std::move(origin); }
void OptionTable::call_count(std::string_view key) { node_->counts.emplace_back(key); }
std::string OptionTable::text_of(std::string_view key) const {
  const Node::Entry* entry = node_->find(key);
  return entry != nullptr && entry->value.kind == Kind::string ? entry->value.text : "";
}
bool OptionTable::taken(std::string_view key) const { return node_->find_known(key) != nullptr; }

void OptionTable::take(std::string_view key, bool& value, std::string_view help) {
  take_value(*node_, key, value, help, "true or false",
             [](const OptionValue& v) { return v.kind == Kind::boolean ? std::optional(v.boolean) : std::nullopt; });
}
void OptionTable::take(std::string_view key, int64_t& value, std::string_view help) {
  if (std::ranges::find(node_->counts, key) != node_->counts.end()) return take_count(key, value, help);
  take_value(*node_, key, value, help, "an integer", integer_in_range<int64_t>);
}
void OptionTable::take(std::string_view key, uint64_t& value, std::string_view help) {
  take_value(*node_, key, value, help, "an integer from 0", integer_in_range<uint64_t>);
}
void OptionTable::take(std::string_view key, int& value, std::string_view help) {
  take_value(*node_, key, value, help, "an integer from -2147483648 to 2147483647", integer_in_range<int>);
}
void OptionTable::take(std::string_view key, double& value, std::string_view help) {
  take_value(*node_, key, value, help, "a number", number_of);
}
void OptionTable::take(std::string_view key, std::string& value, std::string_view help) {
  take_value(*node_, key, value, help, "a string", string_of);
}
void OptionTable::take(std::string_view key, std::vector<std::string>& value, std::string_view help) {
  take_value(*node_, key, value, help, "an array of strings", [](const OptionValue& v) {
    return v.kind == Kind::string ? std::optional(std::vector<std::string>{v.text}) : all_of<std::string>(v, string_of);
  });
}
void OptionTable::take(std::string_view key, std::vector<int64_t>& value, std::string_view help) {
  take_value(*node_, key, value, help, "an array of integers",
             [](const OptionValue& v) { return all_of<int64_t>(v, integer_in_range<int64_t>); });
}
void OptionTable::take(std::string_view key, std::vector<double>& value, std::string_view help) {
  take_value(*node_, key, value, help, "an array of numbers",
             [](const OptionValue& v) { return all_of<double>(v, number_of); });
}
void OptionTable::take_for_each(std::string_view key, std::vector<int64_t>& value, std::string_view help) {
  take_value(*node_, key, value, help, "an integer or an array of integers", [](const OptionValue& v) {
    if (const auto one = integer_in_range<int64_t>(v)) return std::optional(std::vector<int64_t>{*one});
    return all_of<int64_t>(v, integer_in_range<int64_t>);
  });
  if (Node::Known* known = node_->find_known(key); known && value.size() == 1) known->text = to_toml(value[0]);
}
void OptionTable::take_count(std::string_view key, int64_t& value, std::string_view help) {
  call_count(key);
  take_value(*node_, key, value, help, "a whole number such as 250000 or 2.5e5", whole_number);
}

OptionTable OptionTable::table(std::string_view key) {
  Node::Known& known = node_->know(key);
  known.kind = Kind::table;
  if (known.nodes.empty()) {
    if (const Node::Entry* entry = node_->find(key)) {
      if (entry->value.kind != Kind::table)
        throw UserError::recipe(
            entry->where, fmt::format("{}: got {}, expected a table", node_->full_name(key), describe(entry->value)));
      known.nodes = entry->value.nodes;
    } else {
      auto absent = std::make_shared<Node>();
      absent->path = node_->full_name(key);
      absent->header = node_->header.empty() ? toml_key(key) : node_->header + "." + toml_key(key);
      absent->where = node_->where;
      known.nodes = {absent};
    }
  }
  return OptionTable(known.nodes[0]);
}

std::vector<OptionTable> OptionTable::tables(std::string_view key) {
  Node::Known& known = node_->know(key);
  known.kind = Kind::tables;
  const Node::Entry* entry = node_->find(key);
  if (entry && entry->value.kind != Kind::tables &&
      !(entry->value.kind == Kind::array && entry->value.elements.empty()))
    throw UserError::recipe(entry->where, fmt::format("{}: got {}, expected an array of tables, [[{}]]",
                                                      node_->full_name(key), describe(entry->value), key));
  if (entry) known.nodes = entry->value.nodes;
  return {known.nodes.begin(), known.nodes.end()};
}

std::vector<std::string> OptionTable::table_names() const {
  std::vector<std::string> names;
  for (const Node::Entry& entry : node_->entries)
    if (entry.value.kind == Kind::table) names.push_back(entry.key);
  return names;
}

std::vector<Override> OptionTable::overrides(std::string_view key) {
  const OptionTable outer = table(key);
  std::vector<Override> list;
  const auto collect = [&](const auto& self, const Node& inner, const std::string& prefix) -> void {
    for (const Node::Entry& entry : inner.entries) {
      if (entry.value.kind == Kind::table) {
        self(self, *entry.value.nodes[0], prefix + entry.key + ".");
        continue;
      }
      if (entry.value.kind == Kind::date)
        throw UserError::recipe(entry.where, fmt::format("{}: got a date or time, which no option takes", entry.key));
      list.push_back({.path = prefix + entry.key, .value = to_toml(entry.value), .where = entry.where});
    }
  };
  collect(collect, *outer.node_, "");
  for (const Override& override : list) {  // the resolved recipe shows what was read
    Node::Known& known = outer.node_->know(override.path);
    known.text = override.value;
    known.origin = override.where;
    known.given = true;
  }
  return list;
}

void OptionTable::finish() const {
  for (const Node::Entry& entry : node_->entries) {
    if (node_->find_known(entry.key)) continue;
    std::vector<std::string> names;
    for (const Node::Known& known : node_->known) names.push_back(known.key);
    if (entry.overridden) names.insert(names.end(), node_->stage_names.begin(), node_->stage_names.end());
    const std::string hint = names.empty() ? "" : fmt::format("; did you mean '{}'?", nearest(entry.key, names));
    throw UserError::recipe(entry.where, fmt::format("unknown key '{}'{}", entry.key, hint));
  }
}

std::string describe(const OptionValue& value) {
  switch (value.kind) {
    case Kind::boolean:
      return to_toml(value.boolean) + " (boolean)";
    case Kind::integer:
      return to_toml(value.integer) + " (integer)";
    case Kind::number:
      return to_toml(value.number) + " (float)";
    case Kind::string:
      return to_toml(value.text.size() > 60 ? value.text.substr(0, 60) + "..." : value.text) + " (string)";
    case Kind::date:
      return "a date or time";
    case Kind::array: {
      std::vector<std::string> kinds;
      for (const OptionValue& element : value.elements) {
        const std::string kind = describe(element);
        kinds.push_back(kinds.size() == 3 ? "..." : kind);
        if (kinds.size() == 4) break;
      }
      return fmt::format("[{}] (array)", fmt::join(kinds, ", "));
    }
    case Kind::table:
      return "a table";
    case Kind::tables:
      return "an array of tables";
  }
  throw InternalError("unknown kind of value");
}

std::string to_toml(const std::string& value) {
  std::string text = "\"";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      text += '\\';
      text += c;
    } else if (c == '\n') {
      text += "\\n";
    } else if (c == '\t') {
      text += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      text += fmt::format("\\u{:04X}", byte);
    } else {
      text += c;
    }
  }
  return text + "\"";
}

std::string to_toml(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  const std::string text = fmt::format("{}", value);  // the shortest text that reads back as the same number
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string to_toml(const OptionValue& value) {
  std::string text;
  const auto list = [&](const auto& items, const auto& print) {
    for (const auto& item : items) text += (text.empty() ? "" : ", ") + print(item);
  };
  const auto table_text = [](const std::shared_ptr<Node>& node) {
    std::string inner;
    for (const Node::Entry& entry : node->entries)
      inner += fmt::format("{}{} = {}", inner.empty() ? "" : ", ", toml_key(entry.key), to_toml(entry.value));
    return "{" + inner + "}";
  };
  switch (value.kind) {
    case Kind::boolean:
      return to_toml(value.boolean);
    case Kind::integer:
      return to_toml(value.integer);
    case Kind::number:
      return to_toml(value.number);
    case Kind::string:
      return to_toml(value.text);
    case Kind::array:
      list(value.elements, [](const OptionValue& element) { return to_toml(element); });
      return "[" + text + "]";
    case Kind::tables:
      list(value.nodes, table_text);
      return "[" + text + "]";
    case Kind::table:
      return table_text(value.nodes[0]);
    case Kind::date:
      break;
  }
  throw InternalError("a value that TOML text is not made of");
}

std::string toml_key(std::string_view key) {
  const auto bare = [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  return !key.empty() && std::ranges::all_of(key, bare) ? std::string(key) : to_toml(std::string(key));
}

}  // namespace coppice
