#include "recipes/stages/cut_target.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "recipes/language/recipe.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/stages/prune.h"

namespace coppice {
namespace {

/// Whole groups go: as many query heads for a key/value head as before, of the size that they had.
void check_heads(const Stage& stage, const std::string& from, const std::string& target, const ModelConfig& source,
                 const ModelConfig& wanted) {
  const int64_t ratio = source.num_attention_heads / source.num_key_value_heads;
  check(wanted.num_attention_heads == wanted.num_key_value_heads * ratio, stage.where,
        fmt::format("{}: model.{} has {} query heads for {} key/value heads, and stage '{}' has {} for each: whole "
                    "groups are cut; give it num_attention_heads = {}",
                    stage.name, target, wanted.num_attention_heads, wanted.num_key_value_heads, from, ratio,
                    wanted.num_key_value_heads * ratio));
  check(wanted.head_dim == source.head_dim, stage.where,
        fmt::format("{}: model.{}.head_dim: got {}, and heads are cut whole: give it head_dim = {} (what stage '{}' "
                    "has)",
                    stage.name, target, wanted.head_dim, source.head_dim, from));
}

/// Which layers stay would decide the widths that are left, and nobody knows it before.
void check_layers(const Recipe& recipe, const Stage& stage, const std::string& from, const ModelConfig& source) {
  const bool even =
      std::ranges::adjacent_find(source.intermediate_size, std::not_equal_to<>()) == source.intermediate_size.end();
  check(even && global_cut(recipe, from) == nullptr, stage.where,
        fmt::format("{}: the layers of stage '{}' differ in FFN width, and which of them stay is not known before; cut "
                    "layers first, then channels",
                    stage.name, from));
}

/// The rms_norm_eps that a target's table asks for. A cut of the residual stream moves the model's, while tables keep
/// that of its first stage: such a table stands for what the source has, and what is moved must be an eps still.
double asked_eps(const Recipe& recipe, const Stage& stage, const std::string& from, const std::string& target,
                 CutAxis axis) {
  const ModelConfig source = recipe.model_after(from);
  const ModelConfig& table = recipe.models.at(target);
  std::string first = from;
  for (std::string name = from; !name.empty(); name = start_of(recipe.stage(name))) first = name;
  const double eps = recipe.model_after(first).rms_norm_eps;
  if (axis != CutAxis::hidden && source.rms_norm_eps == eps) return table.rms_norm_eps;
  check(table.rms_norm_eps == eps, stage.where,
        fmt::format("{}: model.{}.rms_norm_eps: got {}, expected {} (what stage '{}' has): a cut of hidden_size moves "
                    "it by itself",
                    stage.name, target, table.rms_norm_eps, eps, first));
  if (axis == CutAxis::hidden)
    check_config(cut_config(source, axis, {table.hidden_size}),
                 fmt::format("{}: {}: a cut of hidden_size {} to {} raises rms_norm_eps {} as much", stage.where,
                             stage.name, source.hidden_size, table.hidden_size, source.rms_norm_eps),
                 /*from_file=*/false);
  return source.rms_norm_eps;
}

/// Whether a stage, or one that its model goes back to, is such.
bool goes_back_to(const Recipe& recipe, std::string name, const std::function<bool(const Stage&)>& is_such) {
  for (; !name.empty(); name = start_of(recipe.stage(name)))
    if (is_such(recipe.stage(name))) return true;
  return false;
}

bool cuts(const Stage& stage, CutAxis axis) {
  const auto* prune = stage.find<PruneStage>();
  return prune != nullptr && axis_of(prune->axis) == axis;
}

/// Whether what `name` leaves is cut along that axis by a later stage that goes on from it, to the same target.
bool is_cut_later(const Recipe& recipe, const std::string& name, const std::string& target, CutAxis axis) {
  return std::ranges::any_of(recipe.stages, [&](const Stage& later) {
    return later.name != name && cuts(later, axis) && later.get<PruneStage>().target == target &&
           goes_back_to(recipe, later.name, [&](const Stage& stage) { return stage.name == name; });
  });
}

}  // namespace

CutAxis axis_of(const std::string& name) {
  const std::optional<CutAxis> axis = find_axis(name);
  COPPICE_CHECK(axis.has_value(), "axis " + name);
  return *axis;
}

ModelConfig shape_after_cut(const Recipe& recipe, const std::string& from, const std::string& target, CutAxis axis) {
  return cut_config(recipe.model_after(from), axis, units_of(recipe.models.at(target), axis));
}

void check_target(const Recipe& recipe, const Stage& stage, const std::string& from, const std::string& target,
                  CutAxis axis) {
  const CutAxisRow& row = row_of(axis);
  const ModelConfig source = recipe.model_after(from);
  ModelConfig wanted = recipe.models.at(target);
  const std::vector<int64_t> has = units_of(source, axis), keeps = units_of(wanted, axis);
  for (size_t r = 0; r < has.size() && r < keeps.size(); ++r)
    check(keeps[r] <= has[r], stage.where,
          fmt::format("{}: model.{}.{}: got {}, expected at most {} (what stage '{}' has)", stage.name, target,
                      row.size_key, keeps[r], has[r], from));
  if (row.per_layer && wanted.num_hidden_layers < source.num_hidden_layers)
    check(!is_cut_later(recipe, stage.name, target, CutAxis::layers), stage.where,
          fmt::format("{}: model.{} has {} layers, stage '{}' has {}: layers are cut before {}", stage.name, target,
                      wanted.num_hidden_layers, from, source.num_hidden_layers, row.units));
  if (axis == CutAxis::heads || is_cut_later(recipe, stage.name, target, CutAxis::heads))
    check_heads(stage, from, target, source, wanted);
  if (axis == CutAxis::layers) check_layers(recipe, stage, from, source);
  wanted.rope_theta = source.rope_theta;
  wanted.rope_scaling = source.rope_scaling;
  wanted.qkv_bias = source.qkv_bias;  // a recipe's table has no key for these two: they come with imported models
  wanted.max_position_embeddings = source.max_position_embeddings;
  for (const CutAxis each : kCutOrder) {  // what this stage and later ones cut as the source has it: the rest is equal
    const std::vector<int64_t> units = units_of(source, each), left = units_of(wanted, each);
    const bool goes =
        left.size() == units.size() && left != units && std::ranges::equal(left, units, std::less_equal{});
    if (!goes || (each != axis && !is_cut_later(recipe, stage.name, target, each))) continue;
    wanted = cut_config(wanted, each, units);
  }
  wanted.rms_norm_eps = asked_eps(recipe, stage, from, target, axis);
  check(
      wanted == source, stage.where,
      fmt::format("{}: model.{} differs from stage '{}' in more than {}; only {} are cut, and no later stage cuts the "
                  "rest to it",
                  stage.name, target, from, row.size_key, row.units));
}

void identify_cut(const Recipe& recipe, const std::string& target, CutAxis axis, Json& identity) {
  const std::vector<int64_t> keeps = units_of(recipe.models.at(target), axis);
  if (axis == CutAxis::ffn) {
    identity.erase("axis");
    identity[row_of(axis).size_key] = keeps;
  } else {
    identity[row_of(axis).size_key] = keeps.front();
  }
}

}  // namespace coppice
