#include "recipes/midway.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "recipes/stage_changes.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/base/nearest.h"
#include "src/checkpoint/checkpoint.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// What a checkpoint can go on under. Not among them: what its tensors are made of (model, optimizer, mask method), and what decides the order of the samples.
const std::vector<std::string> kChangeable = {
    "tokens",      "lr",        "weight_decay",       "beta_1",     "beta_2",      "max_grad_norm",  "drop_grad_norm",     "warmup_steps",   "final_lr_ratio",
    "decay_norms", "z_loss",    "micro_batch_tokens", "eval_steps", "eval_tokens", "teacher_weight", "teacher_weight_end", "kd_temperature", "jsd_beta",
    "distil_from", "distil_to", "hidden_weight",      "score_lr",   "gate_lr"};

std::pair<std::string, std::string> split(const std::string& allowed) {
  const size_t dot = allowed.rfind('.');
  return dot == std::string::npos ? std::pair(allowed, std::string()) : std::pair(allowed.substr(0, dot), allowed.substr(dot + 1));
}

/// Paths that differ between what lies in the folder and `wanted`; nothing when one of them is no key that a checkpoint can go on under.
std::optional<std::vector<std::string>> changeable_paths(const Json& held, const Json& wanted) {
  std::vector<std::string> paths = changed_paths(held, wanted);
  const auto changeable = [](const std::string& path) { return std::ranges::find(kChangeable, key_in_recipe(path)) != kChangeable.end(); };
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

/// The checkpoint to go on from; later ones are set aside. Nothing when the stage has none yet.
std::optional<int64_t> choose_step(const fs::path& ckpt, const std::string& stage, const std::optional<int64_t>& resume_from) {
  if (!fs::exists(ckpt)) return std::nullopt;
  if (!resume_from) {
    const auto newest = find_newest_checkpoint(ckpt);
    return newest ? std::optional(newest->step) : std::nullopt;
  }
  const std::vector<CheckpointPlace> places = list_checkpoints(ckpt);
  const auto chosen = std::ranges::find(places, *resume_from, &CheckpointPlace::step);
  if (chosen == places.end()) {
    std::vector<int64_t> steps;
    for (const CheckpointPlace& place : places) steps.push_back(place.step);
    std::ranges::reverse(steps);
    throw UserError::bad_file(ckpt.string(),
                              fmt::format("no checkpoint of step {}; there are steps {} (keep_last says how many stay)", *resume_from, fmt::join(steps, ", ")));
  }
  check_checkpoint(*chosen);
  for (const CheckpointPlace& place : places)
    if (place.step > *resume_from) set_aside_checkpoint(place, ".left-");
  log_info(fmt::format("stage '{}': going back to step {}; later checkpoints are now .left-step-*", stage, *resume_from));
  return resume_from;
}

}  // namespace

void check_midway(const MidwayRequest& request, const Recipe& recipe) {
  for (const std::string& allowed : request.allowed) {
    const auto [name, key] = split(allowed);
    const auto stage = std::ranges::find(recipe.stages, name, &Stage::name);
    if (stage == recipe.stages.end() || training_of(*stage) == nullptr)
      throw UserError::recipe("--allow-change",
                              fmt::format("got '{}', expected <stage>.<key> of a train or learn_masks stage, for instance core.lr", printable(allowed)));
    if (std::ranges::find(kChangeable, key) == kChangeable.end())
      throw UserError::recipe("--allow-change", fmt::format("'{}' is no key that a checkpoint can go on under (nearest: {}); those are {}", printable(key),
                                                            nearest(key, kChangeable), fmt::join(kChangeable, ", ")));
  }
}

Json with_recorded_changes(const fs::path& stage_folder, Json wanted) {
  const auto begun = begun_identity(stage_folder);
  if (!begun) return wanted;
  const Json held = begun->value("identity", Json::object());
  return held.contains("changes") && changed_paths(held, wanted).empty() ? held : wanted;
}

void go_on_midway(RunFolder& run, const Stage& stage, const Json& wanted, const MidwayRequest& request) {
  const fs::path folder = run.stage(stage.name);
  const auto begun = begun_identity(folder);
  if (training_of(stage) == nullptr || !begun || fs::exists(folder / "manifest.json")) return;
  const Json held = begun->value("identity", Json::object());
  const auto paths = changeable_paths(held, wanted);
  if (!paths) return;  // refused later, with the keys
  for (const std::string& path : *paths)
    if (std::ranges::find(request.allowed, stage.name + "." + key_in_recipe(path)) == request.allowed.end()) return;
  if (paths->empty() && !request.resume_from) return;

  const auto step = choose_step(folder / "ckpt", stage.name, request.resume_from);
  Json identity = wanted;
  identity.erase("changes");
  if (step) {
    Json changes = held.value("changes", Json::array());
    for (Json& change : changes) change["step"] = std::min(change["step"].get<int64_t>(), *step);  // gone back past it: it holds from there
    if (!paths->empty()) {
      Json keys = Json::object();
      for (const std::string& path : *paths) keys[path] = {leaf_at(held, path), leaf_at(wanted, path)};
      changes.push_back({{"step", *step}, {"fingerprint", begun->at("fingerprint")}, {"keys", keys}});
    }
    if (!changes.empty()) identity["changes"] = changes;
  }
  run.begin_stage(stage.name, fingerprint(identity), identity);
  if (!paths->empty()) log_info(fmt::format("stage '{}': {} from step {} on", stage.name, changed_keys(held, wanted), step.value_or(0)));
}

bool changed_at(const Json& identity, const std::string& fingerprint, int64_t step) {
  return std::ranges::any_of(identity.value("changes", Json::array()),
                             [&](const Json& change) { return change.at("fingerprint") == fingerprint && change.at("step") == step; });
}

std::vector<std::string> keys_to_allow(const Stage& stage, const fs::path& stage_folder, const Json& wanted) {
  const auto begun = begun_identity(stage_folder);
  if (training_of(stage) == nullptr || !begun || fs::exists(stage_folder / "manifest.json")) return {};
  std::vector<std::string> keys;
  for (const std::string& path : changeable_paths(begun->value("identity", Json::object()), wanted).value_or(std::vector<std::string>()))
    keys.push_back(stage.name + "." + key_in_recipe(path));
  return keys;
}

std::string changes_text(const Json& identity) {
  std::string text;
  for (const Json& change : identity.value("changes", Json::array()))
    for (const auto& [path, values] : change.at("keys").items())
      text += fmt::format("{}{} {} -> {} at step {}", text.empty() ? "" : ", ", key_in_recipe(path), values.at(0).dump(), values.at(1).dump(),
                          change.at("step").get<int64_t>());
  return text;
}

}  // namespace coppice
