#include "recipes/run_folder.h"

#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "recipes/prepare_data.h"
#include "recipes/score_tasks.h"
#include "recipes/version.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr int kStageVersion = 1;

/// Every field of an Options struct as JSON, but for those that cannot change a result.
template <class Options>
Json fields_json(Options options, std::initializer_list<std::string_view> left_out = {}) {
  Json json = Json::object();
  auto field = [&](const char* name, const auto& value, const char*) {
    if (std::ranges::find(left_out, std::string_view(name)) == left_out.end()) json[name] = value;
  };
  options.visit_fields(field);
  return json;
}

Json training_json(const TrainingOptions& training) {
  Json json = fields_json(training, {"checkpoint_steps", "keep_last", "keep_finished", "max_skipped_steps"});
  json["tokens"] = training.tokens;
  for (const MixtureEntry& entry : training.mixture)
    json["mixture"].push_back({{"domain", entry.domain}, {"weight", entry.weight}, {"max_epochs", entry.max_epochs}});
  return json;
}

struct OptionsJson {
  const Recipe& recipe;
  Json operator()(const TrainStage& s) const {
    Json json = training_json(s.training);
    if (s.from.empty()) json["model"] = to_json(recipe.models.at(s.model));
    if (s.has_teacher()) json["distillation"] = fields_json(s.distillation);
    if (!s.teachers.empty()) json["teachers"] = s.teachers;
    if (s.labels.size() > 1) json["labels"] = s.labels;
    if (s.teacher_shares.size() > 1) json["teacher_shares"] = s.teacher_shares;
    if (!s.teachers.empty() && s.distillation.loss == "top_k") json["top_k"] = s.top_k;
    json["rope_theta"] = s.rope_theta;
    return json;
  }
  Json operator()(const ImportStage& s) const { return {{"folder", corpus_sha256(s.path)}}; }
  Json operator()(const LearnMasksStage& s) const {
    Json json = training_json(s.training);
    json["masks"] = fields_json(s.masks, {"on_collapse"});
    json["intermediate_size"] = recipe.models.at(s.target).intermediate_size;
    return json;
  }
  Json operator()(const PruneStage& s) const {
    return {{"scores", s.scores}, {"calibration_tokens", s.calibration_tokens}, {"intermediate_size", recipe.models.at(s.target).intermediate_size}};
  }
  Json operator()(const LabelStage& s) const {
    Json json = {{"window_rule", s.window_rule}, {"coverage", s.coverage}, {"context", s.context},
                 {"overlap", s.overlap},         {"tier", s.tier},         {"temperature", s.temperature}};
    if (s.tier == "topk") json["top_k"] = s.top_k;
    if (!s.import.empty()) json["import"] = corpus_sha256(s.import);
    if (!s.import_teacher.empty()) json["import_teacher"] = s.import_teacher;
    if (!s.cache.empty())  // a manifest holds the hashes of its files
      for (const DomainOptions& domain : recipe.data.domains) json["cache"][domain.name] = sha256_file(label_cache(s.cache, domain.name) / "manifest.json");
    if (s.coverage == "used") {  // what its readers draw decides which documents are labelled
      for (const Stage& reader : recipe.stages) {
        const auto* train = std::get_if<TrainStage>(&reader.options);
        for (const std::string& labels : train ? train->labels : std::vector<std::string>())
          if (std::get_if<LabelStage>(&recipe.stage(labels).options) == &s) json["readers"].push_back(training_json(train->training));
      }
    }
    return json;
  }
  Json operator()(const EvaluateStage& s) const {
    Json json = {{"of", s.of}, {"teacher", s.teacher}, {"seq_len", s.seq_len}, {"tokens", s.tokens}};
    if (!s.tasks.empty()) json["tasks"] = tasks_identity(s.tasks);
    return json;
  }
  Json operator()(const ExportStage& s) const { return {{"formats", s.formats}, {"dtype", s.dtype}}; }
};

std::string iso_time() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "cpu";
}

/// The manifest as it stands, its files not looked at; nothing when there is none.
std::optional<Json> read_manifest(const std::filesystem::path& stage_folder) {
  const std::filesystem::path path = stage_folder / "manifest.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  return read_sealed(path, "coppice.stage", kStageVersion);
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
    write_file_atomically(path, seal({{"format", "coppice.stage_identity"}, {"version", kStageVersion}, {"fingerprint", fingerprint}, {"identity", identity}}));
}

void RunFolder::finish_stage(const std::string& name, const std::string& kind, const std::string& fingerprint, Json body) {
  body["format"] = "coppice.stage";
  body["version"] = kStageVersion;
  body["stage"] = {{"name", name}, {"kind", kind}};
  body["fingerprint"] = fingerprint;
  body["files"] = Json::array();
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(stage(name)))
    if (const std::string file = entry.path().filename().string();
        entry.is_regular_file() && file != "manifest.json" && !file.starts_with(".") && !file.ends_with(".cut.jsonl"))
      files.push_back(entry.path());  // what a resume cut off is not a result
  std::ranges::sort(files);
  for (const auto& file : files) {
    // metrics carry wall-clock keys, so their bytes are listed but their hash would make equal runs differ
    Json entry = {{"name", file.filename().string()}};
    if (file.extension() != ".jsonl") entry.update({{"bytes", std::filesystem::file_size(file)}, {"sha256", sha256_file(file)}});
    body["files"].push_back(entry);
  }
  write_file_atomically(stage(name) / "manifest.json", seal(body));
}

void RunFolder::add_seconds(const std::string& name, double seconds) {
  Json run = read_run_file(root_);
  if (!run.contains("seconds")) run["seconds"] = Json::object();
  run["seconds"][name] = run["seconds"].value(name, 0.0) + seconds;
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
  const std::filesystem::path target = root_ / fmt::format(".old-{}-{}", name, old_fingerprint.substr(0, 8));
  std::filesystem::remove_all(target);
  commit_rename(root_ / name, target);
  log_info(fmt::format("stage '{}' was made with other options: moved to {}", name, target.string()));
}

void RunFolder::write_run_file(const Recipe& recipe) {
  Json run = read_run_file(root_);
  run["recipe"] = recipe.name;
  run["seed"] = recipe.seed;
  run["versions"] = versions_json();
  run["machine"] = machine_json();
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
    throw UserError::bad_file(manifest, fmt::format("same_as: got '{}', expected <arm>/seed-<n>/<stage>", printable(named)));
  const std::filesystem::path folder = std::filesystem::absolute(stage_folder).lexically_normal().parent_path().parent_path().parent_path() / same_as;
  const auto target = read_manifest(folder);
  if (!target || target->contains("same_as") || target->value("fingerprint", "") != string_at(*body, "fingerprint", manifest))
    throw UserError::bad_file(manifest, fmt::format("same_as: {} does not hold this result; run the ablation again to mend it", folder.string()));
  return folder;
}

void write_same_as(const std::filesystem::path& stage_folder, const std::string& name, const std::string& kind, const std::string& fingerprint,
                   const std::string& same_as) {
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
    check_leaf_name(name, path.string());
    if (!file.contains("sha256")) continue;
    const std::filesystem::path member = stage_folder / name;
    if (!std::filesystem::exists(member))
      throw UserError::bad_file(member.string(), "missing, though the stage's manifest lists it; move the stage's folder away to run it again");
    if (std::filesystem::file_size(member) != unsigned_at(file, "bytes", path.string()) || sha256_file(member) != string_at(file, "sha256", path.string()))
      throw UserError::bad_file(member.string(), "differs from the hash in the stage's manifest; move the stage's folder away to run it again");
  }
  return manifest;
}

std::string begun_fingerprint(const std::filesystem::path& stage_folder) {
  const std::filesystem::path path = stage_folder / "identity.json";
  if (!std::filesystem::exists(path)) return "";
  return string_at(read_sealed(path, "coppice.stage_identity", kStageVersion), "fingerprint", path.string());
}

Json stage_identity(const Recipe& recipe, const Stage& stage, const std::map<std::string, std::string>& input_fingerprints,
                    const std::string& data_fingerprint) {
  Json inputs = Json::object();
  for (const std::string& name : stage.inputs()) inputs[name] = input_fingerprints.at(name);
  Json identity = {{"format", "coppice.stage"}, {"version", kStageVersion}, {"kind", stage.kind},
                   {"data", data_fingerprint},  {"inputs", inputs},         {"options", std::visit(OptionsJson{recipe}, stage.options)}};
  if (stage.kind == "train" || stage.kind == "learn_masks" || stage.kind == "prune") identity["seed"] = stage.seed;  // the others draw nothing
  return identity;
}

double take_peak_memory() {
  double bytes = std::nan("");
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) bytes = 1024 * std::strtod(line.c_str() + 6, nullptr);
  std::ofstream("/proc/self/clear_refs") << "5";  // resets the mark to what is resident now
  return bytes;
}

double gemm_gflops() {
  static const double rate = [] {
    const at::Tensor a = at::randn({768, 768}), b = at::randn({768, 768});
    double best_s = 1e9;
    for (int turn = 0; turn < 8; ++turn) {
      const double begin_s = monotonic_s();
      const at::Tensor c = a.mm(b);
      best_s = std::min(best_s, monotonic_s() - begin_s);
    }
    return 2.0 * 768 * 768 * 768 / best_s / 1e9;
  }();
  return rate;
}

Json versions_json() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return {
      {"coppice", kVersion},  {"git", kGitCommit}, {"build", kBuildType}, {"torch", kTorchVersion}, {"hdf5", fmt::format("{}.{}.{}", major, minor, release)},
      {"compiler", kCompiler}};
}

Json machine_json() {
  return {{"device", "cpu"},          {"cpu", cpu_name()},     {"cpu_capability", at::get_cpu_capability()},
          {"threads", num_threads()}, {"deterministic", true}, {"gemm_gflops", std::round(gemm_gflops())}};
}

}  // namespace coppice
