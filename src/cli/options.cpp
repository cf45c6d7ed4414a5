// A recipe file to option nodes through toml++ (the only file that includes it), overrides applied to the nodes, and
// the resolved recipe back to TOML.
#include "src/cli/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
// toml++ 3.3 asserts what malformed text can break, with an error path behind every assertion: errors, not aborts, in
// debug builds too.
#define TOML_ASSERT(condition) static_assert(true)
#include <toml++/toml.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/nearest.h"
#include "src/cli/option_node.h"

namespace coppice {
namespace {

using Kind = OptionValue::Kind;
using Node = OptionTable::Node;

constexpr uint64_t kMaxBytes = 1 << 20;
constexpr size_t kMaxDepth = 32;

/// Refuses keys of very many dotted parts before the parser sees them: it builds, and later destroys, one nested table
/// for each part.
void check_dotted_keys(std::string_view text, const std::string& file) {
  size_t line = 1, dots = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"' || c == '\'') {  // strings are skipped; three quotes open one that may span lines
      const bool block = text.substr(i, 3) == std::string(3, c);
      for (i += block ? 3 : 1; i < text.size(); ++i) {
        if (text[i] == '\n') ++line;
        if (text[i] == '\\' && c == '"') {
          ++i;
        } else if (block ? text.substr(i, 3) == std::string(3, c) : text[i] == c || text[i] == '\n') {
          i += block ? 2 : 0;
          break;
        }
      }
    } else if (c == '#') {
      i = std::min(text.find('\n', i), text.size()) - 1;
    } else if (c == '\n' || c == '=' || c == ',' || c == '{' || c == '}' || c == '[' || c == ']') {
      dots = 0;
      if (c == '\n') ++line;
    } else if (c == '.' && ++dots > kMaxDepth) {
      throw UserError::recipe(fmt::format("{}:{}", file, line), fmt::format("a key of more than {} parts", kMaxDepth));
    }
  }
}

/// From toml++ to nodes; `origin` is "--set" for overrides, otherwise places are file:line.
struct Converter {
  std::string file, origin;

  std::string where(const toml::source_region& place, const std::string& parent) const {
    if (!origin.empty()) return origin;
    return place.begin.line == 0 ? parent : fmt::format("{}:{}", file, place.begin.line);
  }

  std::shared_ptr<Node> table(const toml::table& source, const std::string& path, const std::string& header,
                              const std::string& place, size_t depth) const {
    if (depth > kMaxDepth)
      throw UserError::recipe(place, fmt::format("tables and arrays nested deeper than {} levels", kMaxDepth));
    auto node = std::make_shared<Node>();
    node->path = path;
    node->header = header;
    node->where = place;
    node->present = true;
    std::vector<std::pair<toml::source_position, Node::Entry>> placed;
    for (const auto& [key, value] : source) {
      const std::string name(key.str());
      const std::string at = where(key.source(), place);
      if (printable(name) != name)
        throw UserError::recipe(at, fmt::format("the key '{}' contains control characters", printable(name)));
      placed.push_back({key.source().begin,
                        {name, convert(value, node->full_name(name), child_header(header, name), at, depth + 1), at}});
    }
    // toml++ sorts keys by name; people and reports want the order of the file.
    std::ranges::stable_sort(placed, [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [position, entry] : placed) node->entries.push_back(std::move(entry));
    return node;
  }

  /// A [[stage]] answers to its name in messages and overrides; the tables of other arrays have none.
  static std::string element_path(const toml::node& element, const std::string& path) {
    const toml::table* stage = path == "stage" ? element.as_table() : nullptr;
    const auto name = stage ? stage->get_as<std::string>("name") : nullptr;
    return name ? name->get() : path;
  }

  static std::string child_header(const std::string& header, const std::string& key) {
    return header.empty() ? toml_key(key) : fmt::format("{}.{}", header, toml_key(key));
  }

  OptionValue convert(const toml::node& source, const std::string& path, const std::string& header,
                      const std::string& place, size_t depth) const {
    if (depth > kMaxDepth)
      throw UserError::recipe(place, fmt::format("tables and arrays nested deeper than {} levels", kMaxDepth));
    OptionValue value;
    if (const auto* boolean = source.as_boolean()) {
      value.kind = Kind::boolean;
      value.boolean = boolean->get();
    } else if (const auto* integer = source.as_integer()) {
      value.kind = Kind::integer;
      value.integer = integer->get();
    } else if (const auto* number = source.as_floating_point()) {
      value.kind = Kind::number;
      value.number = number->get();
    } else if (const auto* string = source.as_string()) {
      value.kind = Kind::string;
      value.text = string->get();
    } else if (const auto* table_source = source.as_table()) {
      value.kind = Kind::table;
      value.nodes = {table(*table_source, path, header, where(source.source(), place), depth)};
    } else if (const auto* array = source.as_array()) {
      value.kind = array->empty() || !array->is_homogeneous<toml::table>() ? Kind::array : Kind::tables;
      for (const toml::node& element : *array) {
        OptionValue converted =
            convert(element, element_path(element, path), header, where(element.source(), place), depth + 1);
        if (value.kind == Kind::tables) {
          value.nodes.push_back(converted.nodes[0]);
        } else {
          value.elements.push_back(std::move(converted));
        }
      }
    } else {
      value.kind = Kind::date;
    }
    return value;
  }
};

toml::table parse(std::string_view text, const std::string& file) {
  try {
    return toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    throw UserError::recipe(fmt::format("{}:{}:{}", file, error.source().begin.line, error.source().begin.column),
                            std::string(error.description()));
  }
}

OptionValue parse_override(const Override& override, const std::string& path, const std::string& header) {
  const std::string origin = override.where.empty() ? "--set" : override.where;
  const std::string flag =
      override.where.empty() ? fmt::format("--set {}={}", override.path, override.value) : override.where;
  const auto refuse = [&](std::string_view why) {
    return UserError::recipe(
        flag, fmt::format("the value is not TOML: {}; a string needs quotes: --set '{}=\"...\"'", why, override.path));
  };
  check_dotted_keys(override.value, flag);
  toml::table parsed;
  try {
    parsed = toml::parse("value = " + override.value);
  } catch (const toml::parse_error& error) {
    throw refuse(error.description());
  }
  if (parsed.size() != 1 || !parsed.contains("value")) throw refuse("more than one value");
  return Converter{.file = "", .origin = origin}.convert(*parsed.get("value"), path, header, origin, 1);
}

/// A place in the tree that an override names: the table and the key in it.
struct Target {
  Node* table;
  std::string key;
};

/// Follows a dotted path; with `create`, tables that are missing come into being (finish() refuses them by name if
/// nobody reads them).
Target follow(Node& root, const std::string& path, const std::string& where, const std::string& origin, bool create) {
  Node* node = &root;
  std::string_view rest = path;
  // The longest stage name wins: names may contain dots.
  size_t matched = 0;
  if (const Node::Entry* stages = root.find("stage"); stages && stages->value.kind == Kind::tables)
    for (const auto& stage : stages->value.nodes)
      if (stage->path.size() > matched && rest.starts_with(stage->path) &&
          rest.substr(stage->path.size()).starts_with('.')) {
        matched = stage->path.size();
        node = stage.get();
      }
  if (matched > 0) rest.remove_prefix(matched + 1);

  for (size_t depth = 0;; ++depth) {
    const size_t dot = rest.find('.');
    const std::string part(rest.substr(0, dot));
    if (part.empty() || printable(part) != part || depth > kMaxDepth)
      throw UserError::recipe(where, "expected <key>, <table>.<key> or <stage name>.<key>");
    if (dot == std::string_view::npos) {
      const bool is_stage = node == &root && std::ranges::find(root.stage_names, part) != root.stage_names.end();
      if (is_stage && !root.find(part))
        throw UserError::recipe(where, fmt::format("'{0}' is a stage: name a key of it, {0}.<key>", part));
      return {node, part};
    }
    Node::Entry* entry = node->find(part);
    if (!entry && !create) return {node, part};  // the caller says that it is missing
    if (!entry) {
      auto made = std::make_shared<Node>();
      made->path = node->full_name(part);
      made->header = Converter::child_header(node->header, part);
      made->where = origin;
      made->present = true;
      OptionValue value;
      value.kind = Kind::table;
      value.nodes = {made};
      entry = &node->entries.emplace_back(Node::Entry{part, value, origin, true});
    }
    if (entry->value.kind == Kind::tables)
      throw UserError::recipe(
          where, part == "stage"
                     ? fmt::format("a stage is addressed by its name: {}", fmt::join(root.stage_names, ", "))
                     : fmt::format("[[{}]] is an array of tables; it can only be set whole", node->full_name(part)));
    if (entry->value.kind != Kind::table)
      throw UserError::recipe(where,
                              fmt::format("'{}' is {}, no table", node->full_name(part), describe(entry->value)));
    node = entry->value.nodes[0].get();
    rest.remove_prefix(dot + 1);
  }
}

void unset(Node& root, const std::string& path) {
  const Target target = follow(root, path, "--unset " + path, "--unset", false);
  if (target.table->find(target.key)) {
    std::erase_if(target.table->entries, [&](const Node::Entry& entry) { return entry.key == target.key; });
    return;
  }
  std::vector<std::string> names;
  for (const Node::Entry& entry : target.table->entries) names.push_back(entry.key);
  if (target.table == &root) names.insert(names.end(), root.stage_names.begin(), root.stage_names.end());
  throw UserError::recipe(
      "--unset " + path,
      fmt::format("'{}' is not in the recipe{}", target.table->full_name(target.key),
                  names.empty() ? "" : fmt::format("; did you mean '{}'?", nearest(target.key, names))));
}

/// Sets what an override names; tables on the way come into being.
void apply(Node& root, const Override& override) {
  const std::string origin = override.where.empty() ? "--set" : override.where;
  const Target target =
      follow(root, override.path, override.where.empty() ? "--set " + override.path : override.where, origin, true);
  OptionValue value = parse_override(override, target.table->full_name(target.key),
                                     Converter::child_header(target.table->header, target.key));
  if (Node::Entry* entry = target.table->find(target.key)) {
    entry->value = std::move(value);
    entry->where = origin;
    entry->overridden = true;
  } else {
    target.table->entries.push_back({target.key, std::move(value), origin, true});
  }
}

void print(const Node& node, bool origins, std::string& out) {
  using Known = Node::Known;
  for (const Known& known : node.known)
    if (known.kind != Kind::table && known.kind != Kind::tables)
      out +=
          fmt::format("{} = {}{}\n", toml_key(known.key), known.text, origins ? "  # " + printable(known.origin) : "");
  for (const Known& known : node.known) {
    if (known.kind != Kind::table) continue;
    const Node& child = *known.nodes[0];
    const bool has_values = std::ranges::any_of(
        child.known, [](const Known& k) { return k.kind != Kind::table && k.kind != Kind::tables; });
    if (has_values || (child.present && child.known.empty())) out += fmt::format("\n[{}]\n", child.header);
    print(child, origins, out);
  }
  for (const Known& known : node.known) {
    if (known.kind != Kind::tables) continue;
    for (const auto& child : known.nodes) {
      out += fmt::format("\n[[{}]]\n", child->header);
      print(*child, origins, out);
    }
  }
}

}  // namespace

RecipeSource RecipeSource::load(const std::filesystem::path& file, const std::vector<Override>& overrides,
                                const std::vector<std::string>& unset_paths) {
  RecipeSource source;
  source.file_name_ = file.native();
  std::string text;
  try {
    text = read_file(file, kMaxBytes);
  } catch (const UserError& error) {
    throw UserError(ExitCode::recipe,
                    error.what());  // the recipe is part of the command line, so a missing one is a usage error
  }
  check_dotted_keys(text, source.file_name_);
  const Converter converter{.file = source.file_name_, .origin = ""};
  source.root_ = converter.table(parse(text, source.file_name_), "", "", source.file_name_, 0);
  if (const Node::Entry* stages = source.root_->find("stage"); stages && stages->value.kind == Kind::tables)
    for (const auto& stage : stages->value.nodes)
      if (stage->find("name")) source.root_->stage_names.push_back(stage->path);
  for (const std::string& path : unset_paths) unset(*source.root_, path);
  for (const Override& override : overrides) apply(*source.root_, override);
  return source;
}

void RecipeSource::make_arm(const std::vector<std::string>& without, const std::vector<Override>& set,
                            const std::vector<std::string>& drop, const std::string& where) {
  std::erase_if(root_->entries,
                [&](const Node::Entry& entry) { return std::ranges::find(without, entry.key) != without.end(); });
  for (const Override& override : set) apply(*root_, override);
  Node::Entry* stages = root_->find("stage");
  for (const std::string& name : drop) {
    const auto is_dropped = [&](const OptionValue& value) { return value.kind == Kind::string && value.text == name; };
    if (std::ranges::find(root_->stage_names, name) == root_->stage_names.end())
      throw UserError::recipe(where, fmt::format("drop: no stage is named '{}'; did you mean '{}'?", printable(name),
                                                 nearest(name, root_->stage_names)));
    std::erase(root_->stage_names, name);
    std::erase_if(stages->value.nodes, [&](const auto& stage) { return stage->path == name; });
    for (const auto& stage : stages->value.nodes) {
      for (Node::Entry& entry : stage->entries) {
        if ((entry.key == "from" || entry.key == "teacher") && is_dropped(entry.value) &&
            std::ranges::find(drop, stage->path) == drop.end())
          throw UserError::recipe(
              where, fmt::format("drop: stage '{0}' has {1} = \"{2}\"; drop '{0}' as well, or set {0}.{1}", stage->path,
                                 entry.key, name));
        if ((entry.key == "of" || entry.key == "labels") && entry.value.kind == Kind::array)
          std::erase_if(entry.value.elements, is_dropped);
      }
      const auto is_left = [&](const OptionValue& value) {
        return is_dropped(value) || (value.kind == Kind::array && value.elements.empty());
      };
      std::erase_if(stage->entries,
                    [&](const Node::Entry& entry) { return entry.key == "labels" && is_left(entry.value); });
    }
  }
}

OptionTable RecipeSource::root() { return OptionTable(root_); }

std::string RecipeSource::resolved(bool origins) const {
  std::string out;
  print(*root_, origins, out);
  return out.starts_with('\n') ? out.substr(1) : out;
}

const std::string& RecipeSource::file_name() const { return file_name_; }

}  // namespace coppice
