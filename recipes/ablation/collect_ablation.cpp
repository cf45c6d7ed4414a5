// From an ablation's run folder to its report: the evaluations of every arm and seed, and what their models cost.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "recipes/ablation/ablation.h"
#include "recipes/folder/run_folder.h"
#include "recipes/language/sources.h"
#include "recipes/language/training_options.h"
#include "recipes/report/ablation_report.h"
#include "recipes/run/collect_report.h"
#include "recipes/run/lineage.h"
#include "recipes/stages/evaluate.h"
#include "recipes/stages/train.h"
#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// run.json files, each read once.
class RunFiles {
 public:
  const Json& of(const fs::path& folder) {
    const auto found = files_.find(folder);
    if (found != files_.end()) return found->second;
    return files_[folder] = fs::exists(folder / "run.json") ? read_json(folder / "run.json") : Json::object();
  }

 private:
  std::map<fs::path, Json> files_;
};

ArmCost cost_of(const Recipe& recipe, const std::string& name, const fs::path& folder, RunFiles& files) {
  ArmCost cost{
      .tokens = 0, .all_tokens = 0, .flops = 0, .all_flops = 0, .seconds = 0, .all_seconds = 0, .peak_bytes = 0};
  for (const std::string& ancestor : ancestors_of(recipe, name)) {
    const Stage& stage = recipe.stage(ancestor);
    const auto manifest = find_stage_manifest(folder / ancestor);
    if (!manifest) return {};
    const fs::path holder = result_folder(folder / ancestor);
    const Json& run = files.of(holder.parent_path());
    const std::string held_as = holder.filename().string();
    const auto of_run = [&](const char* key) {
      return run.contains(key) ? number_or_absent(run.at(key), held_as.c_str()) : kAbsent;
    };
    const bool is_source = purpose_of(recipe, stage) == StagePurpose::source;
    const auto add = [&](double value, double ArmCost::*own, double ArmCost::*all) {
      if (!(value > 0)) return;
      cost.*all += value;
      if (!is_source) cost.*own += value;
    };
    if (training_of(stage) != nullptr)
      add(number_or_absent(manifest->body, "tokens"), &ArmCost::tokens, &ArmCost::all_tokens);
    add(number_or_absent(manifest->body, "flops"), &ArmCost::flops, &ArmCost::all_flops);
    add(of_run("seconds"), &ArmCost::seconds, &ArmCost::all_seconds);
    if (const double peak = of_run("peak_bytes"); peak > cost.peak_bytes && !is_source) cost.peak_bytes = peak;
  }
  if (cost.peak_bytes == 0) cost.peak_bytes = kAbsent;
  return cost;
}

/// The row of the last finished evaluation that scores the stage's model.
std::optional<ReportModel> find_model(const Recipe& recipe, const std::string& name, const fs::path& folder) {
  std::optional<ReportModel> found;
  for (const Stage& stage : recipe.stages) {
    const auto* evaluate = stage.find<EvaluateStage>();
    if (evaluate == nullptr || std::ranges::find(evaluate->of, name) == evaluate->of.end()) continue;
    const auto manifest = find_stage_manifest(folder / stage.name);
    if (!manifest) continue;
    for (const Json& row : manifest->body.at("results").at("models")) {
      if (row.at("name") != name) continue;
      found = scored_model(row);
      found->split = manifest->body.value("split", found->split);
    }
  }
  if (found) found->training_tokens = lineage_of(recipe, name).training_tokens;
  return found;
}

std::string title_of(const Recipe& recipe, const std::string& name) {
  const Stage& stage = recipe.stage(name);
  const auto* train = stage.find<TrainStage>();
  const char* when = stage.kind == "prune"         ? "Straight after pruning"
                     : stage.kind == "learn_masks" ? "Under masks"
                     : stage.kind == "import"      ? "As imported"
                     : train->from.empty()         ? "After training"
                                                   : "After recovery";
  return fmt::format("{}: {}", when, name);
}

/// Stages whose seed is pinned, so that all seeds share one result.
std::string shared_stages(const Ablation& ablation) {
  std::map<std::string, uint64_t> pinned;
  if (ablation.seeds.size() < 2) return "";
  for (size_t r = 0; r + 1 < ablation.runs.size(); ++r) {
    const ArmRun &one = ablation.runs[r], &next = ablation.runs[r + 1];
    if (one.arm != next.arm) continue;
    for (const Stage& stage : one.recipe.stages)
      if (training_of(stage) != nullptr && stage.seed == next.recipe.stage(stage.name).seed)
        pinned[stage.name] = stage.seed;
  }
  std::string text;
  for (const auto& [name, seed] : pinned) text += fmt::format("{}{} (seed {})", text.empty() ? "" : ", ", name, seed);
  return text;
}

}  // namespace

AblationReport collect_ablation(const fs::path& root) {
  if (!fs::exists(root / "recipe.toml"))
    throw UserError::bad_file(root.string(), "no run here: recipe.toml is missing");
  const Ablation ablation =
      load_ablation((root / "recipe.toml").string(), {}, {}, std::make_shared<Sources>(root, Sources::First::record));
  AblationReport report{.recipe = ablation.base.name, .seeds = ablation.seeds, .shared = shared_stages(ablation)};
  RunFiles files;
  for (const std::string& name : ablation.compare) {
    Comparison comparison{.stage = name, .title = title_of(ablation.base, name)};
    for (const ArmRun& run : ablation.runs) {
      if (comparison.arms.empty() || comparison.arms.back().name != run.arm)
        comparison.arms.push_back({.name = run.arm, .reference = run.reference, .models = {}, .costs = {}});
      ReportArm& arm = comparison.arms.back();
      const bool has_stage = std::ranges::find(run.recipe.stages, name, &Stage::name) != run.recipe.stages.end();
      const auto model = has_stage ? find_model(run.recipe, name, root / run.folder()) : std::nullopt;
      arm.models.push_back(model.value_or(ReportModel{}));
      arm.costs.push_back(model ? cost_of(run.recipe, name, root / run.folder(), files) : ArmCost{});
    }
    std::erase_if(comparison.arms, [](const ReportArm& arm) {
      return std::ranges::all_of(arm.models, [](const ReportModel& model) { return model.name.empty(); });
    });
    report.comparisons.push_back(std::move(comparison));
  }
  report.versions = pairs_of(files.of(root), "versions");
  report.machine = pairs_of(files.of(root), "machine");
  return report;
}

std::string write_ablation_report(const fs::path& root) {
  const AblationReport report = collect_ablation(root);
  write_file_atomically(root / "ablation.json", ablation_json(report));
  write_file_atomically(root / "ablation.csv", ablation_csv(report));
  write_file_atomically(root / "ablation.svg", ablation_svg(report));
  write_file_atomically(root / "ablation.md", ablation_markdown(report));
  write_file_atomically(root / "ablation.html", ablation_html(report));
  return ablation_verdict(report);
}

}  // namespace coppice
