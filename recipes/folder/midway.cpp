#include "recipes/folder/midway.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "recipes/folder/stage_changes.h"
#include "recipes/language/training_options.h"
#include "src/base/errors.h"
#include "src/base/nearest.h"
#include "src/checkpoint/checkpoint.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// What a checkpoint can go on under. Not among them: what its tensors are made of (model, optimizer and its betas,
/// mask method), and what decides the order of the samples.
const std::vector<std::string> kChangeable = {"tokens",         "lr",
                                              "weight_decay",   "max_grad_norm",
                                              "drop_grad_norm", "warmup_steps",
                                              "final_lr_ratio", "decay_norms",
                                              "z_loss",         "micro_batch_tokens",
                                              "eval_steps",     "eval_tokens",
                                              "teacher_weight", "teacher_weight_end",
                                              "kd_temperature", "jsd_beta",
                                              "distil_from",    "distil_to",
                                              "hidden_weight",  "score_lr",
                                              "gate_lr",        "multiplier_lr"};

std::pair<std::string, std::string> split(const std::string& allowed) {
  const size_t dot = allowed.rfind('.');
  return dot == std::string::npos ? std::pair(allowed, std::string())
                                  : std::pair(allowed.substr(0, dot), allowed.substr(dot + 1));
}

/// Paths that differ between what was begun and what is wanted; nothing when one of them is no key that a checkpoint
/// can go on under.
std::optional<std::vector<std::string>> changeable_paths(const Json& held, const Json& wanted) {
  std::vector<std::string> paths = changed_paths(held, wanted);
  const auto changeable = [](const std::string& path) {
    return std::ranges::find(kChangeable, key_in_recipe(path)) != kChangeable.end();
  };
  if (!std::ranges::all_of(paths, changeable)) return std::nullopt;
  return paths;
}

/// The leaf at options.distillation.teacher_weight; null where there is none.
Json leaf_at(const Json& identity, const std::string& path) {
  Json::json_pointer pointer;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    pointer.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return identity.contains(pointer) ? identity.at(pointer) : Json();
}

bool is_under_way(const fs::path& stage_folder) {
  return fs::exists(stage_folder / "ckpt") && !fs::exists(stage_folder / "manifest.json");
}

/// Changes at one step are one change: from before the first to after the last. What came back to where it was is none.
Json folded(const Json& changes) {
  Json result = Json::array();
  for (const Json& change : changes) {
    if (result.empty() || result.back().at("step") != change.at("step")) {
      result.push_back(change);
      continue;
    }
    Json& keys = result.back()["keys"];
    for (const auto& [path, values] : change.at("keys").items()) {
      keys[path] = {keys.contains(path) ? keys[path].at(0) : values.at(0), values.at(1)};
      if (keys[path].at(0) == keys[path].at(1)) keys.erase(path);
    }
    if (keys.empty()) result.erase(result.size() - 1);
  }
  return result;
}

Json with_changes(Json identity, const Json& changes) {
  identity.erase("changes");
  if (!changes.empty()) identity["changes"] = changes;
  return identity;
}

}  // namespace

void check_allowed_changes(const std::vector<std::string>& allowed, const Recipe& recipe) {
  for (const std::string& text : allowed) {
    const auto [name, key] = split(text);
    const auto stage = std::ranges::find(recipe.stages, name, &Stage::name);
    if (stage == recipe.stages.end() || training_of(*stage) == nullptr)
      throw UserError::recipe(
          "--allow-change",
          fmt::format("got '{}', expected <stage>.<key> of a train or learn_masks stage, for instance core.lr",
                      printable(text)));
    if (std::ranges::find(kChangeable, key) == kChangeable.end())
      throw UserError::recipe(
          "--allow-change", fmt::format("'{}' is no key that a checkpoint can go on under (nearest: {}); those are {}",
                                        printable(key), nearest(key, kChangeable), fmt::join(kChangeable, ", ")));
  }
}

MidwayIdentity identity_in_folder(const fs::path& stage_folder, const Stage& stage, const Json& wanted,
                                  const std::vector<std::string>& allowed) {
  const auto begun = begun_identity(stage_folder);
  if (!begun) return {wanted};
  const Json held = begun->value("identity", Json::object());
  const auto paths = changeable_paths(held, wanted);
  if (!paths) return {wanted};
  if (paths->empty()) return {held.contains("changes") ? held : wanted};
  const auto is_allowed = [&](const std::string& path) {
    return std::ranges::find(allowed, stage.name + "." + key_in_recipe(path)) != allowed.end();
  };
  if (!std::ranges::all_of(*paths, is_allowed) || training_of(stage) == nullptr ||
      fs::exists(stage_folder / "manifest.json"))
    return {wanted};

  const auto newest = fs::exists(stage_folder / "ckpt") ? find_newest_checkpoint(stage_folder / "ckpt") : std::nullopt;
  if (!newest) return {wanted, true};
  if (const int64_t steps = training_of(stage)->steps(); newest->step > steps)
    throw UserError::recipe(
        stage.where, fmt::format("stage '{}': its checkpoint is of step {}, more than the {} steps of its tokens now",
                                 stage.name, newest->step, steps));
  Json keys = Json::object(), changes = held.value("changes", Json::array());
  for (const std::string& path : *paths) keys[path] = {leaf_at(held, path), leaf_at(wanted, path)};
  changes.push_back({{"step", newest->step}, {"fingerprint", begun->at("fingerprint")}, {"keys", keys}});
  return {with_changes(wanted, folded(changes)), true};
}

bool changed_at(const Json& identity, const std::string& fingerprint, int64_t step) {
  return std::ranges::any_of(identity.value("changes", Json::array()), [&](const Json& change) {
    return change.at("fingerprint") == fingerprint && change.at("step") == step;
  });
}

bool records_change(const Json& identity, const std::string& allowed) {
  for (const Json& change : identity.value("changes", Json::array()))
    for (const auto& [path, values] : change.at("keys").items())
      if (key_in_recipe(path) == split(allowed).second) return true;
  return false;
}

std::vector<std::string> keys_to_allow(const Stage& stage, const fs::path& stage_folder, const Json& wanted) {
  const auto begun = begun_identity(stage_folder);
  if (training_of(stage) == nullptr || !begun || !is_under_way(stage_folder)) return {};
  std::vector<std::string> keys;
  for (const std::string& path :
       changeable_paths(begun->value("identity", Json::object()), wanted).value_or(std::vector<std::string>()))
    keys.push_back(stage.name + "." + key_in_recipe(path));
  return keys;
}

std::string changes_text(const Json& identity) {
  std::string text;
  for (const Json& change : identity.value("changes", Json::array()))
    for (const auto& [path, values] : change.at("keys").items())
      text += fmt::format("{}{} {} -> {} at step {}", text.empty() ? "" : ", ", key_in_recipe(path),
                          values.at(0).dump(), values.at(1).dump(), change.at("step").get<int64_t>());
  return text;
}

void rewind_stage(const fs::path& named_folder, int64_t step) {
  const fs::path folder = fs::absolute(named_folder).lexically_normal();
  const std::string name = folder.filename().string();
  const auto check_under_way = [&] {
    if (begun_fingerprint(folder).empty() || !is_under_way(folder))
      throw UserError::recipe(
          named_folder.string(),
          "no stage under way with a checkpoint; give the folder of one, for instance runs/demo/core");
  };
  check_under_way();  // before a lock is put into a folder that is no run's
  const fs::path parent = folder.parent_path(), above = parent.parent_path().parent_path();
  const RunFolder run(!fs::exists(parent / "log.txt") && fs::exists(above / "log.txt")
                          ? above
                          : parent);  // of an ablation: <run>/<arm>/seed-<n>/<stage>
  check_under_way();                  // its owner may have ended it meanwhile

  const std::vector<CheckpointPlace> places = list_checkpoints(folder / "ckpt");
  const auto chosen = std::ranges::find(places, step, &CheckpointPlace::step);
  if (chosen == places.end()) {
    std::vector<int64_t> steps;
    for (const CheckpointPlace& place : places) steps.insert(steps.begin(), place.step);
    throw UserError::bad_file((folder / "ckpt").string(),
                              fmt::format("no checkpoint of step {}; there are steps {} (keep_last says how many stay)",
                                          step, steps.empty() ? "none" : fmt::format("{}", fmt::join(steps, ", "))));
  }
  check_checkpoint(*chosen);
  for (const CheckpointPlace& place : places)
    if (place.step > step) set_aside_checkpoint(place, ".left-");
  const Json held = begun_identity(folder)->value("identity", Json::object());
  Json changes = held.value("changes", Json::array());
  for (Json& change : changes) change["step"] = std::min(change["step"].get<int64_t>(), step);
  const Json identity = with_changes(held, folded(changes));
  RunFolder::within_locked_run(parent).begin_stage(name, fingerprint(identity), identity);
  fmt::print("{}: at step {}; the same command goes on from there, later checkpoints are now .left-step-*\n",
             named_folder.string(), step);
}

}  // namespace coppice
