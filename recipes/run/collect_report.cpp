#include "recipes/run/collect_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pruning/plan.h"
#include "recipes/folder/midway.h"
#include "recipes/folder/run_folder.h"
#include "recipes/language/recipe.h"
#include "recipes/run/collect_speed.h"
#include "recipes/run/lineage.h"
#include "recipes/stages/cut_target.h"
#include "recipes/stages/learn_masks.h"
#include "recipes/stages/prune.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/metrics.h"
#include "src/model/parameters.h"
#include "src/text/corpus_record.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

ReportScore score_of(const Json& row) {
  return {.loss = number_or_absent(row, "loss"),
          .bits_per_byte = number_or_absent(row, "bits_per_byte"),
          .accuracy = number_or_absent(row, "accuracy"),
          .teacher_agreement = number_or_absent(row, "teacher_agreement"),
          .task_accuracy = number_or_absent(row, "task_accuracy"),
          .ece = number_or_absent(row, "ece"),
          .temperature = number_or_absent(row, "temperature"),
          .calibrated_loss = number_or_absent(row, "calibrated_loss"),
          .copying_accuracy = number_or_absent(row, "copying_accuracy")};
}

void add_models(Report& report, const Recipe& recipe, const Stage& stage, const Json& evaluation,
                const fs::path& root) {
  const Json& rows = evaluation.at("results").at("models");
  std::vector<std::string> names;
  for (const Json& row : rows) names.push_back(row.at("name"));
  const std::string agreement_with = evaluation.value("teacher", "");
  const std::map<std::string, std::string> roles = roles_of(recipe, names, agreement_with);
  for (const Json& row : rows) {
    ReportModel model = scored_model(row);
    model.evaluation = stage.name;
    model.split = evaluation.value("split", model.split);
    model.role = roles.at(model.name);
    const ModelConfig shape = recipe.model_after(model.name);
    model.num_hidden_layers = shape.num_hidden_layers;
    model.num_attention_heads = shape.num_attention_heads;
    model.num_key_value_heads = shape.num_key_value_heads;
    model.hidden_size = shape.hidden_size;
    model.training_tokens = lineage_of(recipe, model.name).training_tokens;
    std::error_code ignored;
    const auto bytes = fs::file_size(result_folder(root / model.name) / "model" / "part-00000.h5", ignored);
    if (!ignored) model.file_bytes = static_cast<double>(bytes);
    report.models.push_back(std::move(model));
  }
  add_measured_speed(report, rows);
}

ReportMasks masks_of_stage(const std::string& name, const Json& results,
                           const std::vector<std::map<std::string, double>>& metrics, const Recipe& recipe,
                           const LearnMasksStage& learned) {
  const CutAxis axis = axis_of(learned.axis);
  ReportMasks masks = mask_series(metrics);
  masks.stage = name;
  masks.num_channels = units_of(recipe.model_after(learned.from), axis).front();
  masks.num_kept = units_of(recipe.models.at(learned.target), axis).front();
  masks.units = row_of(axis).units_of_row;
  masks.unit = row_of(axis).unit;
  masks.per_layer = row_of(axis).per_layer;
  masks.soft_loss = number_or_absent(results, "heldout_soft_loss");
  masks.hard_loss = number_or_absent(results, "heldout_hard_loss");
  masks.random_loss = number_or_absent(results, "heldout_random_loss");
  for (const char* score : {"activation", "magnitude", "random"})
    if (const double share = number_or_absent(results, (std::string("overlap_") + score).c_str()); share == share)
      masks.overlap.emplace_back(score, share);
  return masks;
}

/// What a prune stage says of its refit; losses on the windows that masked and pruned model were compared on.
ReportRefit refit_of_stage(const std::string& name, const Json& results) {
  ReportRefit refit{.stage = name,
                    .refitted = {},
                    .uncut_loss = number_or_absent(results.at("refit"), "target_loss"),
                    .cut_loss = number_or_absent(results, "pruned_loss"),
                    .refitted_loss = number_or_absent(results, "refitted_loss")};
  for (const Json& each : results.at("refit").at("layers"))
    refit.refitted.push_back({.layer = each.at("layer"),
                              .weight = each.value("weight", ReportRefitted().weight),
                              .before = each.at("before"),
                              .after = each.at("after")});
  return refit;
}

/// Of several mask stages the one that the judged model comes from; the first without one.
ReportMasks masks_to_show(const Report& report, const Recipe& recipe, const std::vector<ReportMasks>& masks) {
  const ReportModel* judged = judged_model(report);
  for (const ReportMasks& each : masks)
    if (judged != nullptr && descends_from(recipe, judged->name, each.stage)) return each;
  return masks.empty() ? ReportMasks() : masks.front();
}

}  // namespace

double number_or_absent(const Json& object, const char* key) {
  return object.contains(key) && object.at(key).is_number() ? object.at(key).get<double>() : kAbsent;
}

std::vector<std::pair<std::string, std::string>> pairs_of(const Json& run, const char* key) {
  std::vector<std::pair<std::string, std::string>> pairs;
  if (run.contains(key))
    for (const auto& [name, value] : run.at(key).items())
      pairs.emplace_back(name, value.is_string() ? value.get<std::string>() : value.dump());
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
  if (row.contains("copying"))
    for (const Json& copying : row.at("copying"))
      model.copying.push_back({.distance = copying.at("distance"),
                               .positions = copying.value("positions", int64_t{0}),
                               .accuracy = number_or_absent(copying, "accuracy"),
                               .loss = number_or_absent(copying, "loss")});
  return model;
}

Report collect_report(const fs::path& root) {
  if (!fs::exists(root / "recipe.toml"))
    throw UserError::bad_file(root.string(), "no run here: recipe.toml is missing");
  const Recipe recipe = load_recorded_recipe(root);
  const Json run = fs::exists(root / "run.json") ? read_json(root / "run.json") : Json::object();
  Report report{.recipe = recipe.name};
  for (const CorpusNote& note : corpus_notes(root / "data"))
    report.checks.push_back({.name = note.about, .text = note.text, .passed = !note.spoils});
  std::vector<ReportMasks> masks;
  for (const Stage& stage : recipe.stages) {
    const fs::path folder = result_folder(root / stage.name);
    ReportStage row{.name = stage.name, .kind = stage.kind, .status = "missing", .purpose = purpose_of(recipe, stage)};
    row.from = start_of(stage);
    if (stage.kind == "label" || stage.kind == "export")
      row.from = stage.inputs().empty() ? "" : stage.inputs().front();
    const Json predicted =
        run.contains("predicted") ? run["predicted"].value(stage.name, Json::object()) : Json::object();
    if (const double seconds = number_or_absent(predicted, "seconds"); seconds > 0) row.predicted_seconds = seconds;
    row.predicted_bytes = number_or_absent(predicted, "memory_bytes");
    if (run.contains("seconds") && run["seconds"].contains(stage.name)) row.seconds = run["seconds"][stage.name];
    if (run.contains("checkpoint_stall_s"))
      row.checkpoint_stall_s = number_or_absent(run["checkpoint_stall_s"], stage.name.c_str());
    if (run.contains("peak_bytes")) row.peak_bytes = number_or_absent(run["peak_bytes"], stage.name.c_str());
    if (const auto begun = begun_identity(folder)) row.changed = changes_text(begun->value("identity", Json::object()));
    row.metrics = read_metrics(folder / "metrics.jsonl");
    if (const auto manifest = find_stage_manifest(folder)) {
      row.status = "done";
      row.tokens = number_or_absent(manifest->body, "tokens");
      row.flops = number_or_absent(manifest->body, "flops");
      const Json& results = manifest->body.at("results");
      if (stage.kind == "evaluate") add_models(report, recipe, stage, manifest->body, root);
      if (const auto* learned = stage.find<LearnMasksStage>())
        masks.push_back(masks_of_stage(stage.name, results, row.metrics, recipe, *learned));
      if (results.contains("masked_pruned_difference")) {
        const double difference = results["masked_pruned_difference"],
                     limit = results.value("masked_pruned_limit", kMaskedPrunedLimit);
        report.checks.push_back(
            {.name = fmt::format("{}: masked against pruned logits", stage.name),
             .text = fmt::format("largest relative difference {:.1e} (limit {:.0e})", difference, limit),
             .passed = difference <= limit});
      }
      if (results.contains("refit")) report.refits.push_back(refit_of_stage(stage.name, results));
      if (const auto* prune = stage.find<PruneStage>(); prune && prune->scores == "masks") {
        // Soft, hard and pruned on the check windows of one stage: the mask stage's own losses are of another sample.
        const auto learned = std::ranges::find(masks, prune->from, &ReportMasks::stage);
        if (learned != masks.end()) {
          learned->soft_loss = number_or_absent(results, "soft_mask_loss");
          learned->hard_loss = number_or_absent(results, "hard_mask_loss");
          learned->pruned_loss = number_or_absent(results, "pruned_loss");
          learned->random_loss = kAbsent;
        }
      }
      if (stage.kind == "export")
        for (const auto& [format, facts] : results.items()) {
          const double difference = number_or_absent(facts, "reimport_logit_difference");
          if (const double rounding = number_or_absent(facts, "rounding_logit_difference"); rounding == rounding) {
            report.checks.push_back(
                {.name = fmt::format("{}: {} read back", stage.name, format),
                 .text =
                     fmt::format("every weight is what its type rounds it to, which moves logits by {:.1e}", rounding),
                 .passed = true});
            continue;
          }
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
  add_files(report, recipe, root);
  report.versions = pairs_of(run, "versions");
  report.machine = pairs_of(run, "machine");
  report.masks = masks_to_show(report, recipe, masks);
  return report;
}

std::string write_report(const fs::path& root) {
  const Report report = collect_report(root);
  write_file_atomically(root / "report.json", report_json(report));
  write_file_atomically(root / "report.svg", report_svg(report));
  write_file_atomically(root / "report.md", report_markdown(report));
  write_file_atomically(root / "report.html", report_html(report));
  return verdict_text(report);
}

}  // namespace coppice
