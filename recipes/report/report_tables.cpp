#include "recipes/report/report_tables.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "recipes/report/report_probes.h"
#include "recipes/report/report_refit.h"
#include "recipes/report/report_speed.h"
#include "src/base/log.h"

namespace coppice {
namespace {

constexpr const char* kNone = "\u2013";

/// A column for each size in which the report's models differ, from `column` on.
void add_sizes(const Report& report, ReportTable& table, std::ptrdiff_t column) {
  for (const ReportSize& size : kReportSizes) {
    if (!differs(report, size.member)) continue;
    table.header.insert(table.header.begin() + column, size.name);
    table.is_text.insert(table.is_text.begin() + column, false);
    for (size_t i = 0; i < table.rows.size(); ++i) {
      const int64_t value = report.models[i].*size.member;
      table.rows[i].insert(table.rows[i].begin() + column, value > 0 ? std::to_string(value) : kNone);
    }
    ++column;
  }
}

ReportTable models_table(const Report& report) {
  ReportTable table{
      .section = ReportSection::models,
      .title = "Models",
      .note =
          "Loss is plain cross-entropy in nats a token over all scored positions; accuracy is that of the model's "
          "own top-1 token, agreement "
          "counts how often it equals the "
          "teacher's; tasks is the mean over the multiple-choice tasks. A model trained on top-1 teacher labels looks "
          "worse by loss than by accuracy, by design.",
      .header = {"model", "role", "parameters", "FFN width", "trained on", "file", "loss", "bits a byte",
                 "loss at fitted T", "T", "ECE", "accuracy", "agreement", "copying", "tasks", "decode tokens/s",
                 "peak memory", "scored on"},
      .is_text = {true, true}};
  table.is_text.resize(table.header.size(), false);
  table.note += probes_note(report);
  const bool tuned = std::ranges::any_of(report.models, is_on_tuning_text);
  for (const ReportModel& model : report.models)
    table.rows.push_back({model.name, model.role, count_text(static_cast<double>(model.parameters)),
                          widths_text(model.intermediate_size), count_text(model.training_tokens),
                          bytes_text(model.file_bytes), fixed_text(model.score.loss, 3),
                          fixed_text(model.score.bits_per_byte, 3), fixed_text(model.score.calibrated_loss, 3),
                          fixed_text(model.score.temperature, 2), share_text(model.score.ece),
                          share_text(model.score.accuracy), share_text(model.score.teacher_agreement),
                          share_text(model.score.copying_accuracy), share_text(model.score.task_accuracy),
                          fixed_text(model.decode_tokens_per_s, 0), bytes_text(model.peak_bytes),
                          !tuned                     ? kNone
                          : is_on_tuning_text(model) ? "tuning text"
                                                     : "held-out text"});
  add_sizes(report, table, std::ranges::find(table.header, "trained on") - table.header.begin());
  return table;
}

/// "better", "worse by loss", "better by accuracy and agreement, worse by loss", "within noise".
std::string words_of(const ReportComparison& row) {
  const auto by = [&](ReportOutcome outcome) {
    std::vector<std::string> names;
    for (const ReportMeasure& measure : kReportMeasures)
      if (row.*(measure.by) == outcome) names.emplace_back(measure.name);
    return names;
  };
  const std::vector<std::string> better = by(ReportOutcome::better), worse = by(ReportOutcome::worse);
  const auto part = [](const char* word, const std::vector<std::string>& names) {
    return names.size() == std::size(kReportMeasures) ? std::string(word)
                                                      : fmt::format("{} by {}", word, listed(names));
  };
  if (better.empty() && worse.empty()) return "within noise";
  if (worse.empty()) return part("better", better);
  return better.empty() ? part("worse", worse) : part("better", better) + ", " + part("worse", worse);
}

/// One measure, models down, domains across.
ReportTable domain_table(const Report& report, const char* title, double ReportScore::*measure,
                         std::string (*text)(double)) {
  std::set<std::string> domains;
  for (const ReportModel& model : report.models)
    for (const auto& [name, score] : model.domains) domains.insert(name);
  ReportTable table{
      .section = ReportSection::models, .title = title, .note = "", .header = {"model"}, .is_text = {true}};
  table.header.push_back("all");
  for (const std::string& name : domains) table.header.push_back(name);
  table.is_text.resize(table.header.size(), false);
  if (domains.empty()) return table;
  for (const ReportModel& model : report.models) {
    std::vector<std::string> row = {model.name, text(model.score.*measure)};
    for (const std::string& name : domains) {
      const auto found = model.domains.find(name);
      row.push_back(found == model.domains.end() ? kNone : text(found->second.*measure));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

/// Models down, tasks across.
ReportTable tasks_table(const Report& report) {
  std::map<std::string, int64_t> items;
  for (const ReportModel& model : report.models)
    for (const auto& [name, task] : model.tasks) items[name] = task.items;
  ReportTable table{.section = ReportSection::models,
                    .title = "Multiple choice",
                    .note =
                        "Share of items whose right choice is the most probable one after the context, \u00b1 its "
                        "standard error over the items; per code "
                        "point: the same with every choice's log-probability divided by its length.",
                    .header = {"model", "mean"},
                    .is_text = {true}};
  if (items.empty()) return table;
  for (const auto& [name, count] : items)
    for (const char* words : {"", ", per code point"})
      table.header.push_back(fmt::format("{} ({} items){}", name, count, words));
  table.is_text.resize(table.header.size(), false);
  for (const ReportModel& model : report.models) {
    std::vector<std::string> row = {model.name, share_text(model.score.task_accuracy)};
    for (const auto& [name, count] : items) {
      const ReportTask task = model.tasks.contains(name) ? model.tasks.at(name) : ReportTask{};
      row.push_back(share_text(task.acc) +
                    (std::isfinite(task.stderr_of_acc) ? fmt::format(" \u00b1 {:.1f}", 100 * task.stderr_of_acc) : ""));
      row.push_back(share_text(task.acc_norm));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

ReportTable masks_table(const Report& report) {
  const ReportMasks& masks = report.masks;
  ReportTable table{.section = ReportSection::masks,
                    .title = "What the cut costs",
                    .note =
                        "Held-out loss in nats a token. From soft mask to learned cut is the price of a mask that is "
                        "not binary; learned cut and pruned model must agree.",
                    .header = {"the source with", "loss"},
                    .is_text = {true, false}};
  for (const auto& [name, loss] : {std::pair{"the soft mask", masks.soft_loss},
                                   {"the learned cut", masks.hard_loss},
                                   {"the weights cut out (pruned model)", masks.pruned_loss},
                                   {"a random cut", masks.random_loss}})
    if (std::isfinite(loss)) table.rows.push_back({name, fixed_text(loss, 4)});
  return table;
}

ReportTable stages_table(const Report& report) {
  ReportTable table{.section = ReportSection::costs,
                    .title = "Stages",
                    .note =
                        "Predicted values are what the plan said when the stage was about to start. FLOPs are those of "
                        "the model's formulas, not of a counter. In checkpoints: the part of the time in which "
                        "training stood still for them.",
                    .header = {"stage", "kind", "from", "for", "status", "tokens", "FLOPs", "time", "in checkpoints",
                               "predicted", "peak memory", "predicted memory", "changed midway"},
                    .is_text = {true, true, true, true, true, false, false, false, false, false, false, false, true}};
  const std::pair<StagePurpose, const char*> purposes[] = {{StagePurpose::method, "the method"},
                                                           {StagePurpose::source, "the source"},
                                                           {StagePurpose::comparison, "comparisons"}};
  for (const ReportStage& stage : report.stages) {
    const auto purpose = std::ranges::find(purposes, stage.purpose, [](const auto& row) { return row.first; });
    table.rows.push_back({stage.name, stage.kind, stage.from.empty() ? kNone : stage.from, purpose->second,
                          stage.status, count_text(stage.tokens), flops_text(stage.flops), duration_text(stage.seconds),
                          duration_text(stage.checkpoint_stall_s), duration_text(stage.predicted_seconds),
                          bytes_text(stage.peak_bytes), bytes_text(stage.predicted_bytes), stage.changed});
  }
  for (const auto& [purpose, words] : purposes) {
    if (std::ranges::count(report.stages, purpose, [](const ReportStage& stage) { return stage.purpose; }) == 0)
      continue;
    const auto total = [&, purpose = purpose](double ReportStage::*member) {
      return total_of(report, purpose, member);
    };
    table.rows.push_back({fmt::format("{} in all", words), "", "", "", "", count_text(total(&ReportStage::tokens)),
                          flops_text(total(&ReportStage::flops)), duration_text(total(&ReportStage::seconds)),
                          duration_text(total(&ReportStage::checkpoint_stall_s)),
                          duration_text(total(&ReportStage::predicted_seconds)), kNone, kNone, ""});
    ++table.num_totals;
  }
  return table;
}

/// Comparisons of one model, itself in the first row; without rows when there are none.
ReportTable table_of(const char* title, const char* itself, const std::vector<ReportComparison>& rows,
                     const char* note) {
  ReportTable table{.section = ReportSection::models,
                    .title = title,
                    .note = note,
                    .header = {"against", "model", "parameters", "trained on", "loss", "loss at fitted T", "accuracy",
                               "agreement", "outcome"},
                    .is_text = {true, true, false, false, false, false, false, false, true}};
  const auto add = [&](const std::string& against, const ReportModel& model, const std::string& outcome) {
    table.rows.push_back({against, model.name, count_text(static_cast<double>(model.parameters)),
                          count_text(model.training_tokens), fixed_text(model.score.loss, 3),
                          fixed_text(model.score.calibrated_loss, 3), share_text(model.score.accuracy),
                          share_text(model.score.teacher_agreement), outcome});
  };
  if (!rows.empty()) add(itself, *rows.front().judged, kNone);
  for (const ReportComparison& row : rows) add(row.against, *row.other, words_of(row));
  return without_empty_columns(std::move(table));
}

/// What the judged model was before training, beside other cuts.
ReportTable cuts_table(const Report& report) {
  const ReportModel* judged = judged_model(report);
  std::vector<ReportComparison> rows = comparisons_of(report);
  std::erase_if(rows, [&](const ReportComparison& row) { return row.judged == judged; });
  return table_of("The cut before training", "(the cut)", rows,
                  "What its choice of channels alone was worth: nothing was trained since these cuts.");
}

ReportTable checks_table(const Report& report) {
  ReportTable table{.section = ReportSection::checks,
                    .title = "Checks",
                    .note = "",
                    .header = {"check", "result", ""},
                    .is_text = {true, true, true}};
  for (const ReportCheck& check : report.checks)
    table.rows.push_back({check.name, check.text, check.passed ? "passed" : "FAILED"});
  return table;
}

ReportTable pairs_table(const char* title, const std::vector<std::pair<std::string, std::string>>& pairs) {
  ReportTable table{.section = ReportSection::provenance,
                    .title = title,
                    .note = "",
                    .header = {"what", "value"},
                    .is_text = {true, true}};
  for (const auto& [key, value] : pairs) table.rows.push_back({key, value});
  return table;
}

}  // namespace

std::vector<ReportTable> report_tables(const Report& report) {
  const auto shares = [](double share) { return share_text(share); };
  const auto three = [](double value) { return fixed_text(value, 3); };
  std::vector<ReportTable> tables;
  for (ReportTable& table : std::vector<ReportTable>{
           models_table(report), cuts_table(report), domain_table(report, "Loss by domain", &ReportScore::loss, three),
           domain_table(report, "Bits a byte by domain", &ReportScore::bits_per_byte, three),
           domain_table(report, "Accuracy by domain", &ReportScore::accuracy, shares),
           domain_table(report, "Agreement with the teacher by domain", &ReportScore::teacher_agreement, shares),
           copying_table(report), tasks_table(report), speeds_table(report), masks_table(report), refits_table(report),
           stages_table(report), checks_table(report), pairs_table("Versions", report.versions),
           pairs_table("Machine", report.machine)}) {
    table = without_empty_columns(std::move(table));
    if (!table.rows.empty() && table.header.size() > 1) tables.push_back(std::move(table));
  }
  return tables;
}

ReportTable comparisons_table(const Report& report) {
  const ReportModel* judged = judged_model(report);
  std::vector<ReportComparison> rows = comparisons_of(report);
  std::erase_if(rows, [&](const ReportComparison& row) { return row.judged != judged; });
  return table_of(
      "Held against", "(judged)", rows,
      "The outcome is the judged model's, by loss, accuracy and agreement with the teacher; where one of them is not "
      "named, the scored sample shows no difference in it (what another seed would do, one run cannot know). All "
      "models "
      "of the table were scored on the same windows.");
}

std::string listed(const std::vector<std::string>& items) {
  if (items.size() < 2) return items.empty() ? "" : items.front();
  return fmt::format("{} and {}", fmt::join(items.begin(), items.end() - 1, ", "), items.back());
}

std::string table_text(const ReportTable& table) {
  const auto columns_of = [](const std::string& cell) {  // code points
    return static_cast<size_t>(
        std::ranges::count_if(cell, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
  };
  std::vector<size_t> widths;
  for (const std::string& cell : table.header) widths.push_back(columns_of(cell));
  for (const auto& row : table.rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns_of(row[i]));
  std::string text;
  const auto add = [&](const std::vector<std::string>& row) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string fill(widths[i] - columns_of(row[i]), ' ');
      line += (i == 0 ? "" : "  ") + (table.is_text[i] ? row[i] + fill : fill + row[i]);
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  };
  add(table.header);
  for (const auto& row : table.rows) add(row);
  return text;
}

std::string count_text(double value) { return std::isfinite(value) ? format_count(value) : kNone; }
std::string bytes_text(double bytes) { return std::isfinite(bytes) ? format_bytes(bytes) : kNone; }
std::string duration_text(double seconds) {
  if (!std::isfinite(seconds)) return kNone;
  return seconds < 10   ? fmt::format("{:.1f} s", seconds)
         : seconds < 60 ? fmt::format("{:.0f} s", seconds)
                        : format_duration(seconds);
}

ReportTable without_empty_columns(ReportTable table) {
  for (size_t column = table.header.size(); column-- > 1;) {
    const bool empty =
        std::ranges::all_of(table.rows, [&](const auto& row) { return row[column] == kNone || row[column].empty(); });
    if (!empty) continue;
    const auto at = static_cast<std::ptrdiff_t>(column);
    table.header.erase(table.header.begin() + at);
    table.is_text.erase(table.is_text.begin() + at);
    for (auto& row : table.rows) row.erase(row.begin() + at);
  }
  return table;
}

std::string share_text(double share, int decimals) {
  return std::isfinite(share) ? fmt::format("{:.{}f}%", 100 * share, decimals) : kNone;
}

std::string fixed_text(double value, int decimals) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, decimals) : kNone;
}

std::string flops_text(double flops) {
  if (!std::isfinite(flops)) return kNone;
  for (const auto& [unit, prefix] :
       {std::pair{1e21, "Z"}, {1e18, "E"}, {1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}})
    if (flops >= 0.9995 * unit) return fmt::format("{:.3g} {}FLOP", flops / unit, prefix);
  return fmt::format("{:.0f} FLOP", flops);
}

std::string widths_text(const std::vector<int64_t>& widths) {
  if (widths.empty()) return kNone;
  if (std::ranges::count(widths, widths.front()) == static_cast<std::ptrdiff_t>(widths.size()))
    return std::to_string(widths.front());
  return fmt::format("{}", fmt::join(widths, ", "));
}

double total_of(const Report& report, StagePurpose purpose, double ReportStage::*member) {
  double total = kAbsent;
  for (const ReportStage& stage : report.stages)
    if (stage.purpose == purpose && std::isfinite(stage.*member))
      total = (std::isnan(total) ? 0.0 : total) + stage.*member;
  return total;
}

}  // namespace coppice
