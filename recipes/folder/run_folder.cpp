#include "recipes/folder/run_folder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>

#include "recipes/folder/machine.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/tensors/device.h"

namespace coppice {
namespace {

constexpr int kStageVersion = 1;

std::string iso_time() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

/// The manifest as it stands, its files not looked at; nothing when there is none.
std::optional<Json> read_manifest(const std::filesystem::path& stage_folder) {
  const std::filesystem::path path = stage_folder / "manifest.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  return read_sealed(path, "coppice.stage", kStageVersion);
}

/// A part of a model or of labels: the manifest of its own folder has its hash, and the stage's that manifest's.
bool has_manifest_beside(const std::filesystem::path& stage_folder, const std::filesystem::path& file) {
  return file.parent_path() != stage_folder && file.filename() != "manifest.json" &&
         std::filesystem::exists(file.parent_path() / "manifest.json");
}

/// What a stage left, relative to its folder, sorted: without checkpoints, its own manifest, hidden files and what a
/// resume cut off.
std::vector<std::string> result_files(const std::filesystem::path& stage_folder) {
  std::vector<std::string> files;
  for (auto entry = std::filesystem::recursive_directory_iterator(stage_folder);
       entry != std::filesystem::recursive_directory_iterator(); ++entry) {
    const std::string name = entry->path().filename().string();
    if (entry->is_directory() && (name.starts_with(".") || (entry.depth() == 0 && name == "ckpt")))
      entry.disable_recursion_pending();
    if (!entry->is_regular_file() || name.starts_with(".") || name.ends_with(".cut.jsonl") ||
        (entry.depth() == 0 && name == "manifest.json"))
      continue;
    files.push_back(entry->path().lexically_relative(stage_folder).generic_string());
  }
  std::ranges::sort(files);
  return files;
}

Json read_run_file(const std::filesystem::path& root) {
  const std::filesystem::path path = root / "run.json";
  return std::filesystem::exists(path) ? read_json(path) : Json::object();
}

}  // namespace

RunFolder::RunFolder(std::filesystem::path root) : root_(std::move(root)) {
  make_folder(root_);
  check_writable(root_);
  lock_ = std::make_unique<FolderLock>(root_);
  remove_temporaries(root_);
}

RunFolder RunFolder::within_locked_run(std::filesystem::path root) {
  RunFolder run;
  run.root_ = std::move(root);
  make_folder(run.root_);
  remove_temporaries(run.root_);
  return run;
}

RunFolder RunFolder::beside_its_owner(std::filesystem::path root) {
  RunFolder run;
  run.root_ = std::move(root);
  return run;
}

std::filesystem::path RunFolder::stage(const std::string& name) const { return result_folder(root_ / name); }

void RunFolder::begin_stage(const std::string& name, const std::string& fingerprint, const Json& identity) {
  make_folder(stage(name));
  remove_temporaries(stage(name));
  const std::filesystem::path path = stage(name) / "identity.json";
  if (begun_fingerprint(stage(name)) != fingerprint)
    write_file_atomically(path, seal({{"format", "coppice.stage_identity"},
                                      {"version", kStageVersion},
                                      {"fingerprint", fingerprint},
                                      {"identity", identity}}));
}

void RunFolder::finish_stage(const std::string& name, const std::string& kind, const std::string& fingerprint,
                             Json body) {
  body["format"] = "coppice.stage";
  body["version"] = kStageVersion;
  body["stage"] = {{"name", name}, {"kind", kind}};
  body["fingerprint"] = fingerprint;
  body["files"] = Json::array();
  for (const std::string& file : result_files(stage(name))) {
    const std::filesystem::path path = stage(name) / file;
    Json entry = {{"name", file}};
    // metrics carry wall-clock keys, so their hash would make equal runs differ
    if (path.extension() != ".jsonl") {
      entry["bytes"] = std::filesystem::file_size(path);
      if (!has_manifest_beside(stage(name), path)) entry["sha256"] = sha256_file(path);
    }
    body["files"].push_back(entry);
  }
  write_file_atomically(stage(name) / "manifest.json", seal(body));
}

void RunFolder::add_seconds(const std::string& name, double seconds, double checkpoint_stall_s) {
  Json run = read_run_file(root_);
  const auto add = [&](const char* key, double more) {
    if (!run.contains(key)) run[key] = Json::object();
    run[key][name] = run[key].value(name, 0.0) + more;
  };
  add("seconds", seconds);
  if (checkpoint_stall_s > 0) add("checkpoint_stall_s", checkpoint_stall_s);
  write_file_atomically(root_ / "run.json", run.dump(1) + "\n");
}

void RunFolder::add_peak(const std::string& name, double bytes) {
  if (!std::isfinite(bytes)) return;
  Json run = read_run_file(root_);
  if (!run.contains("peak_bytes")) run["peak_bytes"] = Json::object();
  run["peak_bytes"][name] = std::max(run["peak_bytes"].value(name, 0.0), bytes);
  write_file_atomically(root_ / "run.json", run.dump(1) + "\n");
}

void RunFolder::add_prediction(const std::string& name, double seconds, double memory_bytes) {
  Json run = read_run_file(root_);
  run["predicted"][name] = {{"seconds", seconds}, {"memory_bytes", memory_bytes}};
  write_file_atomically(root_ / "run.json", run.dump(1) + "\n");
}

void RunFolder::move_aside(const std::string& name, const std::string& old_fingerprint) {
  const std::string base = fmt::format(".old-{}-{}", name, old_fingerprint.substr(0, 8));
  std::filesystem::path target = root_ / base;
  for (int i = 2; std::filesystem::exists(std::filesystem::symlink_status(target)); ++i)
    target = root_ / fmt::format("{}.{}", base, i);
  commit_rename(root_ / name, target);
  log_info(fmt::format("stage '{}' was made with other options: moved to {}", name, target.string()));
}

void RunFolder::write_run_file(const Recipe& recipe) {
  Json run = read_run_file(root_);
  run["recipe"] = recipe.name;
  run["seed"] = recipe.seed;
  run["versions"] = versions_json();
  const Placement placement = place(recipe.placement);
  run["machine"] = machine_json();
  run["machine"]["device"] = device_name(placement.device);
  run["machine"]["compute"] = compute_name(placement);
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  run["host"] = host;
  run["started"].push_back(iso_time());
  write_file_atomically(root_ / "run.json", run.dump(1) + "\n");
}

std::filesystem::path result_folder(const std::filesystem::path& stage_folder) {
  const auto body = read_manifest(stage_folder);
  if (!body || !body->contains("same_as")) return stage_folder;
  const std::string manifest = (stage_folder / "manifest.json").string(), named = string_at(*body, "same_as", manifest);
  const std::filesystem::path same_as = named;
  for (const auto& part : same_as) check_leaf_name(part.string(), manifest);
  if (same_as.is_absolute() || std::distance(same_as.begin(), same_as.end()) != 3)
    throw UserError::bad_file(manifest,
                              fmt::format("same_as: got '{}', expected <arm>/seed-<n>/<stage>", printable(named)));
  const std::filesystem::path folder =
      std::filesystem::absolute(stage_folder).lexically_normal().parent_path().parent_path().parent_path() / same_as;
  const auto target = read_manifest(folder);
  if (!target || target->contains("same_as") ||
      target->value("fingerprint", "") != string_at(*body, "fingerprint", manifest))
    throw UserError::bad_file(
        manifest,
        fmt::format("same_as: {} does not hold this result; run the ablation again to mend it", folder.string()));
  return folder;
}

void write_same_as(const std::filesystem::path& stage_folder, const std::string& name, const std::string& kind,
                   const std::string& fingerprint, const std::string& same_as) {
  make_folder(stage_folder);
  write_file_atomically(stage_folder / "manifest.json", seal({{"format", "coppice.stage"},
                                                              {"version", kStageVersion},
                                                              {"stage", {{"name", name}, {"kind", kind}}},
                                                              {"fingerprint", fingerprint},
                                                              {"files", Json::array()},
                                                              {"same_as", same_as}}));
}

std::optional<StageManifest> find_stage_manifest(const std::filesystem::path& named_folder) {
  const std::filesystem::path stage_folder = result_folder(named_folder), path = stage_folder / "manifest.json";
  auto body = read_manifest(stage_folder);
  if (!body) return std::nullopt;
  StageManifest manifest{.body = std::move(*body)};
  manifest.name = string_at(object_at(manifest.body, "stage", path.string()), "name", path.string());
  manifest.kind = string_at(object_at(manifest.body, "stage", path.string()), "kind", path.string());
  manifest.fingerprint = string_at(manifest.body, "fingerprint", path.string());
  for (const Json& file : array_at(manifest.body, "files", path.string())) {
    const std::string name = string_at(file, "name", path.string());
    const std::filesystem::path relative = name, member = stage_folder / relative;
    if (relative.empty() || relative.is_absolute())
      throw UserError::bad_file(path.string(), fmt::format("'{}' is no file of the stage", printable(name)));
    for (const auto& part : relative) check_leaf_name(part.string(), path.string());
    if (!file.contains("bytes")) continue;
    std::error_code error;
    const uint64_t bytes = std::filesystem::file_size(member, error);
    if (error)
      throw UserError::bad_file(
          member.string(),
          fmt::format(
              "cannot be read, though the stage's manifest lists it ({}); move the stage's folder away to run it again",
              error.message()));
    if (bytes != unsigned_at(file, "bytes", path.string()) ||
        (file.contains("sha256") && sha256_file(member) != string_at(file, "sha256", path.string())))
      throw UserError::bad_file(member.string(),
                                "differs from the stage's manifest; move the stage's folder away to run it again");
  }
  return manifest;
}

std::optional<Json> begun_identity(const std::filesystem::path& stage_folder) {
  const std::filesystem::path path = stage_folder / "identity.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  return read_sealed(path, "coppice.stage_identity", kStageVersion);
}

std::string begun_fingerprint(const std::filesystem::path& stage_folder) {
  const auto begun = begun_identity(stage_folder);
  return begun ? string_at(*begun, "fingerprint", (stage_folder / "identity.json").string()) : "";
}

Json stage_identity(const Recipe& recipe, const Stage& stage,
                    const std::map<std::string, std::string>& input_fingerprints, const std::string& data_fingerprint) {
  const StageKind& kind = kind_of(stage);
  Json inputs = Json::object();
  for (const std::string& name : stage.inputs()) inputs[name] = input_fingerprints.at(name);
  Json identity = {{"format", "coppice.stage"}, {"version", kStageVersion}, {"kind", stage.kind},
                   {"data", data_fingerprint},  {"inputs", inputs},         {"options", kind.identity(recipe, stage)}};
  if (kind.seeded) identity["seed"] = stage.seed;
  return identity;
}

}  // namespace coppice
