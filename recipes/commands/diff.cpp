// coppice diff A B: what two decisions or records differ in. Masks and prune plans: kept units per row and how
// much two choices have in common beside what chance would give; recipes and manifests: keys whose values differ.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "pruning/mask_budget.h"
#include "pruning/mask_file.h"
#include "pruning/plan.h"
#include "recipes/commands/verbs.h"
#include "recipes/folder/stage_changes.h"
#include "recipes/language/recipe.h"
#include "recipes/language/sources.h"
#include "src/base/errors.h"
#include "src/base/json.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;
using Kept = std::vector<std::vector<int64_t>>;

enum class Kind { masks, plan, recipe, json };
constexpr const char* kKindNames[] = {"a mask file", "a prune plan", "a recipe", "a JSON file"};

Kind kind_of(const fs::path& path) {
  if (!fs::exists(path)) throw UserError::bad_file(path.string(), "no such file");
  const std::string name = path.filename().string();
  if (path.extension() == ".h5") return Kind::masks;
  if (name == "prune_plan.json") return Kind::plan;
  if (path.extension() == ".toml") return Kind::recipe;
  if (path.extension() == ".json") return Kind::json;
  throw UserError::bad_file(
      path.string(),
      "expected a masks.h5, a prune_plan.json, a recipe (.toml) or another JSON file, for instance a manifest.json");
}

Kept kept_by(const MaskFile& masks) {
  const at::Tensor hard_LF = hard_top_k(masks.scores_LF, masks.widths());
  Kept kept;
  for (const at::Tensor& row_F : hard_LF.unbind(0)) {
    const at::Tensor place_K = row_F.nonzero().squeeze(1).contiguous();
    kept.emplace_back(place_K.const_data_ptr<int64_t>(), place_K.const_data_ptr<int64_t>() + place_K.numel());
  }
  return kept;
}

/// A line a row: units kept by both, as a share of what A keeps, beside the share that a random choice of B's size
/// would give. num_units 0 = the files do not say; then the highest kept one stands for it, which bounds chance
/// from above.
std::string overlap_lines(const Kept& a, const Kept& b, CutAxis axis, int64_t num_units) {
  std::string text;
  for (size_t layer = 0; layer < std::min(a.size(), b.size()); ++layer) {
    std::vector<int64_t> both;
    std::ranges::set_intersection(a[layer], b[layer], std::back_inserter(both));
    const int64_t units = num_units > 0 ? num_units : std::max(a[layer].back(), b[layer].back()) + 1;
    const std::string row = row_of(axis).per_layer ? fmt::format("layer {}", layer) : row_of(axis).units;
    text += fmt::format(
        "  {}: A keeps {}, B keeps {}, both {} ({:.1f} % of A; by chance {}{:.1f} %)\n", row, a[layer].size(),
        b[layer].size(), both.size(), 100.0 * static_cast<double>(both.size()) / static_cast<double>(a[layer].size()),
        num_units > 0 ? "" : "at most ", 100.0 * static_cast<double>(b[layer].size()) / static_cast<double>(units));
  }
  if (a.size() != b.size()) text += fmt::format("  A has {} layers, B {}\n", a.size(), b.size());
  return text;
}

std::string verdict(bool equal, const std::string& what) {
  return fmt::format("{}: {}\n", equal ? "equal" : "different", what);
}

std::string units_text(CutAxis axis) { return fmt::format("{}s", row_of(axis).unit); }

/// "kept groups agree".
std::string kept_text(const Kept& kept_a, CutAxis a, const Kept& kept_b, CutAxis b) {
  return fmt::format("kept {} {}", a == b ? units_text(a) : "units", a == b && kept_a == kept_b ? "agree" : "differ");
}

std::string axes_line(CutAxis a, CutAxis b) {
  return fmt::format("  axes: A {}, B {}\n", row_of(a).name, row_of(b).name);
}

std::string diff_masks(const MaskFile& a, const MaskFile& b) {
  const Kept kept_a = kept_by(a), kept_b = kept_by(b);
  const bool one_shape = a.scores_LF.sizes() == b.scores_LF.sizes();
  const bool values = one_shape && at::equal(a.scores_LF, b.scores_LF) && at::equal(a.soft_LF, b.soft_LF);
  std::string text = verdict(values && kept_a == kept_b && a.source_sha256 == b.source_sha256 && a.axis == b.axis,
                             fmt::format("{}, scores and soft values {}", kept_text(kept_a, a.axis, kept_b, b.axis),
                                         values ? "agree" : "differ"));
  if (a.source_sha256 != b.source_sha256)
    text += fmt::format("  models: A {}, B {}\n", printable(a.source_sha256), printable(b.source_sha256));
  if (a.axis != b.axis) return text + axes_line(a.axis, b.axis);
  if (a.method != b.method) text += fmt::format("  methods: A {}, B {}\n", printable(a.method), printable(b.method));
  if (!one_shape)
    return text + fmt::format("  {}: A {} x {}, B {} x {}\n", units_text(a.axis), a.scores_LF.size(0),
                              a.scores_LF.size(1), b.scores_LF.size(0), b.scores_LF.size(1));
  if (!values)
    text += fmt::format("  largest difference of a soft value: {:.3g}\n",
                        (a.soft_LF - b.soft_LF).abs().max().item<double>());
  return text + overlap_lines(kept_a, kept_b, a.axis, a.scores_LF.size(1));
}

std::string diff_plans(const PrunePlan& a, const PrunePlan& b) {
  std::string text =
      verdict(a.kept == b.kept && a.source_sha256 == b.source_sha256 && a.scores == b.scores && a.axis == b.axis,
              kept_text(a.kept, a.axis, b.kept, b.axis));
  if (a.scores != b.scores) text += fmt::format("  scores: A {}, B {}\n", printable(a.scores), printable(b.scores));
  if (a.source_sha256 != b.source_sha256)
    text += fmt::format("  models: A {}, B {}\n", printable(a.source_sha256), printable(b.source_sha256));
  if (a.axis != b.axis) return text + axes_line(a.axis, b.axis);
  return text + overlap_lines(a.kept, b.kept, a.axis, 0);
}

using Values = std::map<std::string, std::string>;

/// Keys of a resolved recipe, one a line there: data.heldout_share, stage.core.lr. A table of an array goes by its
/// name.
Values recipe_values(const fs::path& path) {
  Values values;
  const auto beside =
      std::make_shared<Sources>(fs::absolute(path).parent_path(), Sources::First::record);  // of a run's recipe.toml
  std::istringstream lines(load_recipe(path.string(), {}, {}, beside).resolved);
  std::string table, stage;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# ")) line.erase(0, 2);  // a default, where arms may set it
    if (line.empty()) continue;
    if (line[0] == '[') {
      table = line.substr(line.find_first_not_of('['), line.find(']') - line.find_first_not_of('[')) + ".";
      if (table.starts_with("stage.") && table != "stage.")
        table = stage + table.substr(6);  // a table of the stage above
      continue;
    }
    const size_t equals = line.find(" = ");
    if (equals == std::string::npos) continue;
    const std::string key = line.substr(0, equals), value = line.substr(equals + 3);
    const bool names_element = (key == "name" || key == "domain") && !table.empty();
    if (names_element) table += value.substr(1, value.size() - 2) + ".";
    if (names_element && key == "name" && table.starts_with("stage.")) stage = table;
    values[table + key] = value;
  }
  return values;
}

std::string diff_values(const Values& a, const Values& b) {
  std::string lines;
  size_t count = 0;
  Values keys = a;
  keys.insert(b.begin(), b.end());
  for (const auto& [key, unused] : keys) {
    const auto in_a = a.find(key), in_b = b.find(key);
    if (in_a != a.end() && in_b != b.end() && in_a->second == in_b->second) continue;
    ++count;
    lines += fmt::format("  {}: A {}, B {}\n", printable(key), in_a == a.end() ? "has none" : printable(in_a->second),
                         in_b == b.end() ? "has none" : printable(in_b->second));
  }
  return verdict(count == 0, fmt::format("{} of {} keys differ", count, keys.size())) + lines;
}

/// Text for people; its first line begins with "equal" or "different". Both must be of one kind.
std::string diff(const fs::path& a, const fs::path& b) {
  const Kind kind = kind_of(a);
  if (kind_of(b) != kind)
    throw UserError::bad_file(
        b.string(), fmt::format("is {}, {} is {}; compare two of one kind", kKindNames[static_cast<int>(kind_of(b))],
                                a.string(), kKindNames[static_cast<int>(kind)]));
  if (kind == Kind::masks) return diff_masks(load_masks(a), load_masks(b));
  if (kind == Kind::plan) return diff_plans(load_plan(a), load_plan(b));
  if (kind == Kind::recipe) return diff_values(recipe_values(a), recipe_values(b));
  return diff_values(json_leaves(read_json(a)), json_leaves(read_json(b)));
}

}  // namespace

void add_diff(CLI::App& app, Action& action) {
  struct Flags {
    std::string first, second;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* compare = add_verb(app, "diff", "what two mask files, prune plans, recipes or manifests differ in",
                               "coppice diff runs/demo/pruned/prune_plan.json runs/demo/cut_magnitude/prune_plan.json");
  compare->add_option("a", flags->first, "masks.h5, prune_plan.json, recipe (.toml) or JSON file")->required();
  compare->add_option("b", flags->second, "another of the same kind")->required();
  compare->callback([flags, &action] { action = [flags] { fmt::print("{}", diff(flags->first, flags->second)); }; });
}

}  // namespace coppice
