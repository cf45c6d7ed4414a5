#include "recipes/collect_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "recipes/midway.h"
#include "recipes/recipe.h"
#include "recipes/run_folder.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/metrics.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// Where a model comes from, by the recipe alone.
struct Lineage {
  std::string role;
  double training_tokens = 0;  // since the cut, or since fresh weights
  bool has_labels = false;
};

Lineage lineage_of(const Recipe& recipe, const std::string& name) {
  const Stage& stage = recipe.stage(name);
  if (const auto* prune = std::get_if<PruneStage>(&stage.options)) return {.role = prune->scores == "masks" ? "pruned" : prune->scores};
  if (const auto* masks = std::get_if<LearnMasksStage>(&stage.options)) return lineage_of(recipe, masks->from);
  if (std::holds_alternative<ImportStage>(stage.options)) return {.role = "source"};
  const auto& train = std::get<TrainStage>(stage.options);
  Lineage lineage;
  if (train.from.empty()) {
    const auto is_cut = [](const Stage& s) { return s.kind == "prune" || s.kind == "learn_masks"; };
    const bool smaller = std::ranges::any_of(recipe.stages, [&](const Stage& s) {
      return is_cut(s) && s.kind == "prune" && recipe.model_after(s.name).intermediate_size == recipe.models.at(train.model).intermediate_size;
    });
    lineage.role = smaller ? "scratch" : "source";
  } else {
    lineage = lineage_of(recipe, train.from);
  }
  lineage.training_tokens += static_cast<double>(train.training.tokens);
  lineage.has_labels |= train.has_teacher();
  if (lineage.role == "pruned" || lineage.role == "student" || lineage.role == "plain") lineage.role = lineage.has_labels ? "student" : "plain";
  return lineage;
}

/// Whether a stage's result is an ancestor of the stage called `name` (or that stage itself).
bool leads_to(const Recipe& recipe, const std::string& ancestor, const std::string& name) {
  if (ancestor == name) return true;
  const std::vector<std::string> inputs = recipe.stage(name).inputs();
  return std::ranges::any_of(inputs, [&](const std::string& input) { return leads_to(recipe, ancestor, input); });
}

StagePurpose purpose_of(const Recipe& recipe, const Stage& stage) {
  if (stage.kind == "evaluate" || stage.kind == "export") return StagePurpose::method;
  if (stage.kind == "import") return StagePurpose::source;
  if (stage.kind == "train" && lineage_of(recipe, stage.name).role == "source") {
    for (const Stage& other : recipe.stages)  // trained on beside the masks only to be cut for comparison
      if (other.kind == "learn_masks" && leads_to(recipe, stage.name, other.name)) return StagePurpose::source;
    return std::ranges::any_of(recipe.stages, [&](const Stage& s) { return s.kind == "learn_masks"; }) ? StagePurpose::comparison : StagePurpose::source;
  }
  for (const Stage& other : recipe.stages)
    if (std::holds_alternative<TrainStage>(other.options) && lineage_of(recipe, other.name).role == "student" && leads_to(recipe, stage.name, other.name))
      return StagePurpose::method;
  return stage.kind == "learn_masks" ? StagePurpose::method : StagePurpose::comparison;
}

ReportScore score_of(const Json& row) {
  return {.loss = number_or_absent(row, "loss"),
          .bits_per_byte = number_or_absent(row, "bits_per_byte"),
          .accuracy = number_or_absent(row, "accuracy"),
          .teacher_agreement = number_or_absent(row, "teacher_agreement"),
          .task_accuracy = number_or_absent(row, "task_accuracy")};
}

void add_models(Report& report, const Recipe& recipe, const Json& evaluation, const fs::path& root) {
  for (const Json& row : evaluation.at("results").at("models")) {
    const std::string name = row.at("name");
    const Lineage lineage = lineage_of(recipe, name);
    ReportModel model = scored_model(row);
    model.role = recipe.stage(name).kind == "learn_masks" ? "" : lineage.role;
    model.training_tokens = lineage.training_tokens;
    if (lineage.role == "source" && name != evaluation.value("teacher", "")) model.role = "";
    std::error_code ignored;
    const auto bytes = fs::file_size(result_folder(root / name) / "model" / "part-00000.h5", ignored);
    if (!ignored) model.file_bytes = static_cast<double>(bytes);
    report.models.push_back(std::move(model));
  }
}

void add_masks(Report& report, const std::string& name, const Json& results, const std::vector<std::map<std::string, double>>& metrics,
               const ModelConfig& before, int64_t kept) {
  report.masks = mask_series(metrics);
  report.masks.stage = name;
  report.masks.num_channels = before.intermediate_size[0];
  report.masks.num_kept = kept;
  report.masks.soft_loss = number_or_absent(results, "heldout_soft_loss");
  report.masks.hard_loss = number_or_absent(results, "heldout_hard_loss");
  report.masks.random_loss = number_or_absent(results, "heldout_random_loss");
  for (const char* score : {"activation", "magnitude", "random"})
    if (const double share = number_or_absent(results, (std::string("overlap_") + score).c_str()); share == share)
      report.masks.overlap.emplace_back(score, share);
}

}  // namespace

double number_or_absent(const Json& object, const char* key) {
  return object.contains(key) && object.at(key).is_number() ? object.at(key).get<double>() : kAbsent;
}

std::vector<std::pair<std::string, std::string>> pairs_of(const Json& run, const char* key) {
  std::vector<std::pair<std::string, std::string>> pairs;
  if (run.contains(key))
    for (const auto& [name, value] : run.at(key).items()) pairs.emplace_back(name, value.is_string() ? value.get<std::string>() : value.dump());
  return pairs;
}

ReportModel scored_model(const Json& row) {
  ReportModel model{.name = row.at("name"),
                    .role = "",
                    .parameters = row.at("parameters"),
                    .intermediate_size = row.at("intermediate_size"),
                    .positions = row.value("positions", int64_t{0}),
                    .score = score_of(row)};
  for (const auto& [domain, scores] : row.at("domains").items()) model.domains[domain] = score_of(scores);
  if (row.contains("tasks"))
    for (const auto& [name, task] : row.at("tasks").items())
      model.tasks[name] = {.acc = number_or_absent(task, "acc"),
                           .acc_norm = number_or_absent(task, "acc_norm"),
                           .stderr_of_acc = number_or_absent(task, "stderr"),
                           .items = task.value("items", int64_t{0})};
  return model;
}

Report collect_report(const fs::path& root) {
  if (!fs::exists(root / "recipe.toml")) throw UserError::bad_file(root.string(), "no run here: recipe.toml is missing");
  const Recipe recipe = load_recorded_recipe(root);
  const Json run = fs::exists(root / "run.json") ? read_json(root / "run.json") : Json::object();
  Report report{.recipe = recipe.name};
  for (const Stage& stage : recipe.stages) {
    const fs::path folder = result_folder(root / stage.name);
    ReportStage row{.name = stage.name, .kind = stage.kind, .status = "missing", .purpose = purpose_of(recipe, stage)};
    if (const std::vector<std::string> inputs = stage.inputs(); !inputs.empty() && stage.kind != "evaluate") row.from = inputs[0];
    const Json predicted = run.contains("predicted") ? run["predicted"].value(stage.name, Json::object()) : Json::object();
    if (const double seconds = number_or_absent(predicted, "seconds"); seconds > 0) row.predicted_seconds = seconds;
    row.predicted_bytes = number_or_absent(predicted, "memory_bytes");
    if (run.contains("seconds") && run["seconds"].contains(stage.name)) row.seconds = run["seconds"][stage.name];
    if (run.contains("peak_bytes")) row.peak_bytes = number_or_absent(run["peak_bytes"], stage.name.c_str());
    if (const auto begun = begun_identity(folder)) row.changed = changes_text(begun->value("identity", Json::object()));
    row.metrics = read_metrics(folder / "metrics.jsonl");
    if (const auto manifest = find_stage_manifest(folder)) {
      row.status = "done";
      row.tokens = number_or_absent(manifest->body, "tokens");
      row.flops = number_or_absent(manifest->body, "flops");
      const Json& results = manifest->body.at("results");
      if (stage.kind == "evaluate") add_models(report, recipe, manifest->body, root);
      if (const auto* masks = std::get_if<LearnMasksStage>(&stage.options))
        add_masks(report, stage.name, results, row.metrics, recipe.model_after(masks->from), recipe.models.at(masks->target).intermediate_size[0]);
      if (results.contains("masked_pruned_difference")) {
        const double difference = results["masked_pruned_difference"];
        report.checks.push_back({.name = fmt::format("{}: masked against pruned logits", stage.name),
                                 .text = fmt::format("largest relative difference {:.1e} (limit 1e-05)", difference),
                                 .passed = difference <= 1e-5});
      }
      if (const auto* prune = std::get_if<PruneStage>(&stage.options); prune && prune->scores == "masks") {
        // Soft, hard and pruned on the check windows of one stage: the mask stage's own losses are of another sample.
        report.masks.soft_loss = number_or_absent(results, "soft_mask_loss");
        report.masks.hard_loss = number_or_absent(results, "hard_mask_loss");
        report.masks.pruned_loss = number_or_absent(results, "pruned_loss");
        report.masks.random_loss = kAbsent;
      }
      if (stage.kind == "export")
        for (const auto& [format, facts] : results.items()) {
          const double difference = number_or_absent(facts, "reimport_logit_difference");
          report.checks.push_back({.name = fmt::format("{}: {} read back", stage.name, format),
                                   .text = fmt::format("largest logit difference {:.1e} (limit 1e-04)", difference),
                                   .passed = difference <= 1e-4});
        }
    } else if (!begun_fingerprint(folder).empty()) {
      row.status = "running";
      if (!row.metrics.empty() && row.metrics.back().contains("tokens")) row.tokens = row.metrics.back().at("tokens");
    }
    report.stages.push_back(std::move(row));
  }
  report.versions = pairs_of(run, "versions");
  report.machine = pairs_of(run, "machine");
  report.verdict = verdict_of(report);
  return report;
}

std::string write_report(const fs::path& root) {
  const Report report = collect_report(root);
  write_file_atomically(root / "report.json", report_json(report));
  write_file_atomically(root / "report.svg", report_svg(report));
  write_file_atomically(root / "report.md", report_markdown(report));
  write_file_atomically(root / "report.html", report_html(report));
  return report.verdict;
}

}  // namespace coppice
