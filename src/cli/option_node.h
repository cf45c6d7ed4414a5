// The parsed recipe behind OptionTable, free of toml++: values with their place in the file, and what readers have
// asked for so far. Only src/cli/*.cpp include this.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/cli/options.h"

namespace coppice {

struct OptionValue {
  enum class Kind { boolean, integer, number, string, date, array, table, tables };
  Kind kind = Kind::boolean;
  bool boolean = false;
  int64_t integer = 0;
  double number = 0;
  std::string text;                                       // string
  std::vector<OptionValue> elements;                      // array
  std::vector<std::shared_ptr<OptionTable::Node>> nodes;  // one for a table, any number for an array of tables
};

struct OptionTable::Node {
  struct Entry {
    std::string key;
    OptionValue value;
    std::string where;        // file:line or --set
    bool overridden = false;  // by --set or by the recipe's own overrides
  };
  /// A key that a reader asked for, in the order of asking.
  struct Known {
    std::string key;
    OptionValue::Kind kind = OptionValue::Kind::boolean;  // table, tables, or anything else for a plain value
    std::string text;                                     // the value in force, as TOML
    std::string origin;                                   // file:line, --set, or where the default comes from
    bool given = false;                                   // by the recipe or by --set; otherwise a default
    std::vector<std::shared_ptr<Node>> nodes;
  };

  std::string path;    // how messages and --set name the table: model.student, or core for the [[stage]] of that name;
                       // empty = root
  std::string header;  // how TOML names it: model.student, stage
  std::string where;
  std::string default_origin = "default";
  bool present = false;  // stands in the recipe, perhaps empty
  std::vector<Entry> entries;
  std::vector<Known> known;
  std::vector<std::string> stage_names;  // root only
  std::vector<std::string> counts;       // keys that may be written 1.2e6

  Entry* find(std::string_view key);
  Known* find_known(std::string_view key);
  Known& know(std::string_view key);
  std::string full_name(std::string_view key) const {
    return path.empty() ? std::string(key) : path + "." + std::string(key);
  }
};

/// `"abc" (string)`, `2 (integer)`, `a table`: for messages.
std::string describe(const OptionValue& value);
std::string to_toml(const std::string& value);
std::string to_toml(double value);
std::string to_toml(const OptionValue& value);
/// A key as TOML writes it: quoted where it has to be.
std::string toml_key(std::string_view key);

}  // namespace coppice
