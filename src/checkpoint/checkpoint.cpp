// Models and the checkpoints of a running stage, as tensor folders. The newest checkpoint is the highest step that
// validates; there is no "latest" file.
#include "src/checkpoint/checkpoint.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/checkpoint/folder_commit.h"
#include "src/checkpoint/stored_weights.h"
#include "src/model/parameters.h"
#include "src/tensors/shape.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

constexpr const char* kModelFormat = "coppice.model";
constexpr const char* kCheckpointFormat = "coppice.checkpoint";

/// The digest a sealed file ends with: `,"sha256":"<64 hex>"}\n`, verified before.
std::string seal_of(const fs::path& folder) {
  const std::string text = read_file(folder / "manifest.json");
  if (text.size() < 67) throw UserError::bad_file((folder / "manifest.json").string(), "too short for a seal");
  return text.substr(text.size() - 67, 64);
}

ModelConfig config_of(const Json& manifest, const fs::path& folder) {
  const std::string where = (folder / "manifest.json").string();
  ModelConfig config = config_from_json(object_at(manifest, "model", where), where);
  check_config(config, where, /*from_file=*/true);
  return config;
}

std::string step_name(int64_t step) { return fmt::format("step-{:08}", step); }

/// The step of "step-00001200"; nothing for any other name.
std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with("step-")) return std::nullopt;
  int64_t step = 0;
  const char *begin = name.data() + 5, *end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(begin, end, step);
  if (error != std::errc() || stop != end || step < 0 || name != step_name(step)) return std::nullopt;
  return step;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  if (!fs::exists(folder, error)) {
    if (error) throw IoError(folder.string(), "cannot be listed", error.value());  // "none" would be a fresh start
    return names;
  }
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    names.push_back(entry->path().filename().string());
  if (error) throw IoError(folder.string(), "cannot be listed", error.value());
  return names;
}

void check_step(const Json& manifest, const CheckpointPlace& place) {
  const std::string where = (place.folder / "manifest.json").string();
  const uint64_t step = unsigned_at(manifest, "step", where);
  if (step != static_cast<uint64_t>(place.step))
    throw UserError::bad_file(where, fmt::format("holds step {}, expected {} by its folder's name", step, place.step));
}

void write_model(const fs::path& folder, const ModelConfig& config,
                 std::function<at::Tensor(const std::string&)> tensor_of, Json facts, uint64_t part_bytes) {
  COPPICE_CHECK(!facts.contains("model"), "the facts of a model hold no config");
  facts["model"] = to_json(config);
  write_tensor_folder(folder, kModelFormat, parameter_source(config, "/model/", std::move(tensor_of)), std::move(facts),
                      part_bytes);
}

}  // namespace

TensorSource parameter_source(const ModelConfig& config, const std::string& prefix,
                              std::function<at::Tensor(const std::string&)> tensor_of) {
  TensorSource source;
  std::vector<Parameter> table = parameter_table(config);
  for (const Parameter& parameter : table)
    source.entries.push_back({.name = prefix + parameter.name, .shape = parameter.shape, .unit = parameter.unit});
  source.value = [table = std::move(table), tensor_of = std::move(tensor_of)](size_t i) {
    return tensor_of(table[i].name);
  };
  return source;
}

void save_model(const fs::path& folder, const Model& model, Json facts, uint64_t part_bytes) {
  const MasterReader master = model.arena->read_master();
  write_model(
      folder, model.config, [&](const std::string& name) { return master[name]; }, std::move(facts), part_bytes);
}

void save_model(const fs::path& folder, const StoredWeights& weights, Json facts) {
  std::map<std::string, Parameter> parameters;
  for (const Parameter& parameter : parameter_table(weights.config)) parameters.emplace(parameter.name, parameter);
  const auto value_of = [&](const std::string& name) {
    const Parameter& parameter = parameters.at(name);
    at::Tensor value = at::empty(parameter.shape, at::kFloat);
    weights.read(parameter, value);
    return value;
  };
  write_model(folder, weights.config, value_of, std::move(facts), kPartBytes);
}

LoadedModel load_model(const fs::path& folder, const Placement& placement) {
  const std::string where = (folder / "manifest.json").string();
  const Json manifest = read_tensor_manifest(folder, kModelFormat);
  const ModelConfig config = config_of(manifest, folder);
  // The seal proves equal bytes, not honest ones: no allocation beyond what the files can hold.
  uint64_t bytes = 0;
  for (const Json& file : array_at(manifest, "files", where)) bytes += unsigned_at(file, "bytes", where);
  const uint64_t wanted = static_cast<uint64_t>(count_parameters(config)) * sizeof(float);
  if (wanted > bytes)
    throw UserError::bad_file(
        where, fmt::format("the config asks for {} bytes of parameters, the files hold {}", wanted, bytes));
  LoadedModel loaded{make_model(config, placement), Json(), ""};
  const MasterEditor master = loaded.model.arena->edit_master();
  loaded.manifest = read_tensor_folder(
      folder, kModelFormat,
      tensors_of(parameter_source(config, "/model/", [&](const std::string& name) { return master[name]; })));
  loaded.sha256 = seal_of(folder);
  return loaded;
}

ModelConfig load_model_config(const fs::path& folder, std::string* sha256) {
  ModelConfig config = config_of(read_tensor_manifest(folder, kModelFormat), folder);
  if (sha256 != nullptr) *sha256 = seal_of(folder);
  return config;
}

std::vector<CheckpointPlace> list_checkpoints(const fs::path& ckpt_folder) {
  std::vector<CheckpointPlace> places;
  for (const std::string& name : names_in(ckpt_folder))
    if (const std::optional<int64_t> step = step_of(name)) places.push_back({ckpt_folder / name, *step});
  std::ranges::sort(places, std::greater{}, &CheckpointPlace::step);
  return places;
}

std::optional<CheckpointPlace> find_newest_checkpoint(const fs::path& ckpt_folder) {
  // One that was set aside earlier still counts as present: its run must not silently begin afresh at the second start.
  size_t num_damaged = std::ranges::count_if(names_in(ckpt_folder),
                                             [](const std::string& name) { return name.starts_with(".bad-step-"); });
  for (const CheckpointPlace& place : list_checkpoints(ckpt_folder)) {
    try {
      check_checkpoint(place);
      return place;
    } catch (const UserError& error) {
      if (error.code() != ExitCode::bad_file) throw;
      const fs::path aside = set_aside_checkpoint(place, ".bad-");
      log_warning(fmt::format("checkpoint of step {} is damaged and passed over, now {}: {}", place.step,
                              aside.filename().string(), error.what()));
      ++num_damaged;
    }
  }
  if (num_damaged == 0) return std::nullopt;
  throw UserError::bad_file(
      ckpt_folder.string(),
      fmt::format("all {} checkpoints are damaged (now .bad-step-*); remove the folder to begin this stage again",
                  num_damaged));
}

fs::path set_aside_checkpoint(const CheckpointPlace& place, const std::string& prefix) {
  const fs::path base = place.folder.parent_path() / (prefix + place.folder.filename().string());
  fs::path target = base;
  std::error_code error;
  for (int i = 2; fs::exists(fs::symlink_status(target, error)); ++i) target = base.string() + fmt::format(".{}", i);
  commit_rename(place.folder, target);
  return target;
}

Json check_checkpoint(const CheckpointPlace& place) {
  Json manifest = check_tensor_folder(place.folder, kCheckpointFormat);
  check_step(manifest, place);
  return manifest;
}

Json read_checkpoint(const CheckpointPlace& place, const TensorsWanted& wanted) {
  Json manifest = read_tensor_manifest(place.folder, kCheckpointFormat);
  check_step(manifest, place);
  const std::string where = (place.folder / "manifest.json").string();
  const std::vector<NamedTensor> into = wanted(manifest, where);
  if (read_tensor_folder(place.folder, kCheckpointFormat, into) != manifest)
    throw UserError::bad_file(where, "was replaced while it was read");
  return manifest;
}

Json read_checkpoint(const CheckpointPlace& place, const std::vector<NamedTensor>& into) {
  return read_checkpoint(place, [&](const Json&, const std::string&) { return into; });
}

void write_checkpoint(const fs::path& ckpt_folder, int64_t step, const TensorSource& source, Json facts,
                      uint64_t part_bytes) {
  COPPICE_CHECK(step >= 0 && step < 100'000'000, fmt::format("step {} has no name of eight digits", step));
  facts["step"] = step;
  write_tensor_folder(ckpt_folder / step_name(step), kCheckpointFormat, source, std::move(facts), part_bytes);
}

void prune_checkpoints(const fs::path& ckpt_folder, int keep_last) {
  if (keep_last < 2)
    throw UserError::recipe(
        "keep_last",
        fmt::format("got {}, expected at least 2: a damaged newest checkpoint needs one to fall back to", keep_last));
  const std::vector<CheckpointPlace> places = list_checkpoints(ckpt_folder);
  for (size_t i = static_cast<size_t>(keep_last); i < places.size(); ++i) {
    // Renamed first: a kill in the middle of the removal leaves a .tmp-*, never half a checkpoint under a final name.
    const fs::path doomed = temporary_path(places[i].folder);
    try {
      commit_rename(places[i].folder, doomed);
    } catch (const IoError& error) {
      log_warning(fmt::format("the old checkpoint {} stays: {}", places[i].folder.filename().string(), error.what()));
      continue;
    }
    COPPICE_FAILPOINT("ckpt.prune");
    discard_folder(doomed);
  }
}

}  // namespace coppice
