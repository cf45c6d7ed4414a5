// TOML tables and --set overrides to Options structs through visit_fields, with the origin of every value. Unknown key
// = file:line and the nearest name.
//
// A recipe is read once into a RecipeSource (toml++ stays inside options.cpp); tables are asked for by path and must be
// fully consumed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/option_mark.h"

namespace coppice {

struct Override {
  std::string path;   // core.tokens
  std::string value;  // TOML
  std::string where;  // file:line when a recipe says it itself; empty: --set
};

/// One table of a recipe. Values are read with take(); what is never taken is an unknown key, reported by finish().
class OptionTable {
 public:
  struct Node;
  explicit OptionTable(std::shared_ptr<Node> node);

  std::string where() const;                      // file:line of the table, or "--set"
  std::string where(std::string_view key) const;  // of one value; the table's when absent
  bool has(std::string_view key) const;
  bool taken(std::string_view key) const;
  /// Where values come from that the table does not give, from the next take() on; "default" unless said: `preset
  /// afm-3b`, `model.source`.
  void call_defaults(std::string origin);
  /// The key is a count: read() takes it as take_count() does.
  void call_count(std::string_view key);
  /// The string that the recipe gives for a key on which defaults depend; empty when it gives none. Takes nothing.
  std::string text_of(std::string_view key) const;

  /// Replaces `value` when the key is present; the wrong type is UserError::recipe(where, "key: got ..., expected ...
  /// (help)"). Every call also registers the key as known, with its default, for finish() and for the resolved recipe.
  void take(std::string_view key, bool& value, std::string_view help);
  void take(std::string_view key, int64_t& value, std::string_view help);
  void take(std::string_view key, uint64_t& value, std::string_view help);
  void take(std::string_view key, int& value, std::string_view help);
  void take(std::string_view key, double& value, std::string_view help);
  void take(std::string_view key, std::string& value, std::string_view help);
  void take(std::string_view key, std::vector<std::string>& value,
            std::string_view help);  // one string is a list of one
  void take(std::string_view key, std::vector<int64_t>& value, std::string_view help);
  void take(std::string_view key, std::vector<double>& value, std::string_view help);
  /// One integer for all (a vector of one) or one for each.
  void take_for_each(std::string_view key, std::vector<int64_t>& value, std::string_view help);
  /// A count that may be written 1.2e6: a whole number within 64 bits.
  void take_count(std::string_view key, int64_t& value, std::string_view help);

  OptionTable table(std::string_view key);                // an empty one when absent
  std::vector<OptionTable> tables(std::string_view key);  // [[key]]
  std::vector<std::string> table_names() const;           // keys of this table whose values are tables
  /// The values below table `key` as overrides of the recipe itself, { "core.tokens" = 5, core.lr = 0.1 } alike; each
  /// with its place.
  std::vector<Override> overrides(std::string_view key);

  /// Fills any struct that has visit_fields().
  template <class Options>
  void read(Options& options) {
    auto field = [this](const char* name, auto& value, Mark, const char* help) { take(name, value, help); };
    options.visit_fields(field);
  }
  /// The values in force of the keys that were taken, tables below among them, as TOML; `without` some keys.
  std::string in_force(const std::vector<std::string>& without) const;
  /// Refuses keys nobody took: `my.toml:2: unknown key 'kd_wieght'; did you mean 'teacher_weight'?`
  void finish() const;

 private:
  std::shared_ptr<Node> node_;
};

/// A value of the command line as TOML: as it stands where it is TOML, as a string otherwise.
std::string toml_value(std::string_view text);
/// Any text as a string of TOML.
std::string toml_string(const std::string& text);

class RecipeSource {
 public:
  /// Parses the file (UserError::recipe with line:column), then applies overrides: `<stage name>.<key>` reaches the
  /// [[stage]] of that name, everything else a path of tables, of which one of an array is called by its name, or its
  /// kind where it has none: data.step.quality.min_words. `unset` paths are removed before. UserError::recipe when
  /// a path leads through a value, to a table of an array that has no such name, or unsets what is not there; a table
  /// that the file lacks comes into being, so a misspelt first part is refused by finish() as an unknown key.
  static RecipeSource load(const std::filesystem::path& file, const std::vector<Override>& overrides,
                           const std::vector<std::string>& unset);
  /// The same of TOML that a program has put together; `name` stands for the file in messages. `places`, where given:
  /// what stands for each line instead, such as the flag that it was made of; keys are then called without their
  /// tables.
  static RecipeSource parse_text(std::string_view text, const std::string& name,
                                 const std::vector<std::string>& places = {});
  /// Turns an ablation's recipe into one arm of it: root keys `without` go, `set` is applied as overrides, [[stage]]
  /// tables named in `drop` are removed. `labels` of a stage that names a dropped one falls away, a list `of` loses it;
  /// `from` and `teacher` are refused at `where`, and so is a name that is no stage.
  void make_arm(const std::vector<std::string>& without, const std::vector<Override>& set,
                const std::vector<std::string>& drop, const std::string& where);
  OptionTable root();
  /// The resolved recipe as TOML text: every known key with its value; with `origins`, a comment per line says
  /// file:line, --set or default. In an ablation's, defaults of models and stages stand behind a '#': they may follow a
  /// key that an arm sets.
  std::string resolved(bool origins) const;
  const std::string& file_name() const;

 private:
  std::shared_ptr<OptionTable::Node> root_;
  std::string file_name_;
};

}  // namespace coppice
