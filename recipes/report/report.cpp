// report.json and report.md; the picture is drawn in report_charts.cpp, the page in report_html.cpp, the verdict in
// report_verdict.cpp.
#include "recipes/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "recipes/report/report_tables.h"
#include "src/base/errors.h"

namespace coppice {
namespace {

using OrderedJson = nlohmann::ordered_json;  // fields in the order a person reads them

/// Sets a key unless the number is absent; JSON has no NaN.
void put(OrderedJson& object, const char* key, double value) {
  if (std::isfinite(value)) object[key] = value;
}

void put_score(OrderedJson& object, const ReportScore& score) {
  put(object, "loss", score.loss);
  put(object, "bits_per_byte", score.bits_per_byte);
  put(object, "accuracy", score.accuracy);
  put(object, "teacher_agreement", score.teacher_agreement);
  put(object, "task_accuracy", score.task_accuracy);
  put(object, "ece", score.ece);
  put(object, "temperature", score.temperature);
  put(object, "calibrated_loss", score.calibrated_loss);
  put(object, "copying_accuracy", score.copying_accuracy);
}

/// A whole number where the value is one: tokens are counts, not 300000.0.
OrderedJson whole(double value) {
  return value == std::floor(value) && std::abs(value) < 9e15 ? OrderedJson(static_cast<int64_t>(value))
                                                              : OrderedJson(value);
}

OrderedJson numbers(const std::vector<double>& values) {
  OrderedJson array = OrderedJson::array();
  for (const double value : values) array.push_back(std::isfinite(value) ? whole(value) : OrderedJson());
  return array;
}

OrderedJson stage_json(const ReportStage& stage) {
  constexpr const char* kPurposes[] = {"method", "source", "comparison"};
  OrderedJson json = {{"name", stage.name}, {"kind", stage.kind}};
  if (std::isfinite(stage.tokens)) json["tokens"] = whole(stage.tokens);
  put(json, "seconds", stage.seconds);
  put(json, "checkpoint_stall_s", stage.checkpoint_stall_s);
  json["status"] = stage.status;
  if (!stage.from.empty()) json["from"] = stage.from;
  json["purpose"] = kPurposes[static_cast<size_t>(stage.purpose)];
  if (!stage.changed.empty()) json["changed"] = stage.changed;
  put(json, "predicted_seconds", stage.predicted_seconds);
  put(json, "flops", stage.flops);
  put(json, "peak_bytes", stage.peak_bytes);
  put(json, "predicted_bytes", stage.predicted_bytes);
  return json;
}

OrderedJson model_json(const Report& report, const ReportModel& model) {
  OrderedJson json = {{"name", model.name}, {"role", model.role}, {"parameters", model.parameters}};
  const std::vector<int64_t>& widths = model.intermediate_size;
  if (!widths.empty() && std::ranges::count(widths, widths.front()) == static_cast<std::ptrdiff_t>(widths.size()))
    json["intermediate_size"] = widths.front();
  else
    json["intermediate_size"] = widths;
  for (const ReportSize& size : kReportSizes)
    if (differs(report, size.member) && model.*size.member > 0) json[size.key] = model.*size.member;
  put_score(json, model.score);
  if (!model.evaluation.empty()) json["evaluation"] = model.evaluation;
  if (is_on_tuning_text(model)) json["split"] = model.split;
  json["training_tokens"] = whole(model.training_tokens);
  if (model.positions > 0) json["positions"] = model.positions;
  put(json, "file_bytes", model.file_bytes);
  put(json, "decode_tokens_per_s", model.decode_tokens_per_s);
  put(json, "peak_bytes", model.peak_bytes);
  json["domains"] = OrderedJson::object();
  for (const auto& [name, score] : model.domains) put_score(json["domains"][name] = OrderedJson::object(), score);
  for (const auto& [name, task] : model.tasks) {
    OrderedJson& row = json["tasks"][name] = {{"items", task.items}};
    put(row, "acc", task.acc);
    put(row, "acc_norm", task.acc_norm);
    put(row, "stderr", task.stderr_of_acc);
  }
  for (const ReportCopying& copying : model.copying) {
    OrderedJson row = {{"distance", copying.distance}, {"positions", copying.positions}};
    put(row, "accuracy", copying.accuracy);
    put(row, "loss", copying.loss);
    json["copying"].push_back(std::move(row));
  }
  return json;
}

void put_rate(OrderedJson& object, const std::string& key, const ReportRate& rate) {
  put(object, key.c_str(), rate.median);
  if (std::isfinite(rate.low) && std::isfinite(rate.high)) object[key + "_range"] = {rate.low, rate.high};
}

OrderedJson speed_json(const ReportSpeed& speed) {
  OrderedJson json = {{"model", speed.model}};
  for (const auto& [key, value] : {std::pair{"program", &speed.program},
                                   {"file", &speed.file},
                                   {"type", &speed.type},
                                   {"conditions", &speed.conditions}})
    if (!value->empty()) json[key] = *value;
  if (std::isfinite(speed.file_bytes))
    json[speed.program == "coppice" ? "parameter_bytes" : "file_bytes"] = whole(speed.file_bytes);
  put_rate(json, "prefill_tokens_per_s", speed.prefill);
  put_rate(json, "decode_tokens_per_s", speed.decode);
  if (std::isfinite(speed.peak_bytes)) json["peak_bytes"] = whole(speed.peak_bytes);
  return json;
}

OrderedJson masks_json(const ReportMasks& masks) {
  OrderedJson json = {{"stage", masks.stage},
                      {"num_channels", masks.num_channels},
                      {"num_kept", masks.num_kept},
                      {"units", masks.units}};
  put(json, "soft_loss", masks.soft_loss);
  put(json, "hard_loss", masks.hard_loss);
  put(json, "pruned_loss", masks.pruned_loss);
  put(json, "random_loss", masks.random_loss);
  json["overlap"] = OrderedJson::object();
  for (const auto& [name, share] : masks.overlap) put(json["overlap"], name.c_str(), share);
  json["step"] = numbers(masks.step);
  json["layers"] = OrderedJson::array();
  for (const ReportMaskLayer& layer : masks.layers)
    json["layers"].push_back({{"kept_share", numbers(layer.kept_share)},
                              {"sharpness", numbers(layer.sharpness)},
                              {"churn", numbers(layer.churn)}});
  return json;
}

OrderedJson refit_json(const ReportRefit& refit) {
  OrderedJson json = {{"stage", refit.stage}};
  put(json, "uncut_loss", refit.uncut_loss);
  put(json, "cut_loss", refit.cut_loss);
  put(json, "refitted_loss", refit.refitted_loss);
  put(json, "closed", refit.closed());
  for (const char* key : {"weights", "before", "after"}) json[key] = OrderedJson::array();
  for (const ReportRefitted& each : refit.refitted) {
    json["weights"].push_back(fmt::format("{} {}", each.layer, each.weight));
    json["before"].push_back(each.before);
    json["after"].push_back(each.after);
  }
  return json;
}

OrderedJson comparison_json(const ReportComparison& row) {
  constexpr const char* kOutcomes[] = {"better", "worse", "mixed", "even"};
  return {{"judged", row.judged->name},
          {"against", row.against},
          {"model", row.other->name},
          {"evidence", row.is_peer},
          {"outcome", kOutcomes[static_cast<size_t>(row.outcome)]},
          {"by_loss", kOutcomes[static_cast<size_t>(row.by_loss)]},
          {"by_accuracy", kOutcomes[static_cast<size_t>(row.by_accuracy)]},
          {"by_agreement", kOutcomes[static_cast<size_t>(row.by_agreement)]}};
}

std::string markdown_row(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += " " + escape_markdown(cell) + " |";
  return line + "\n";
}

}  // namespace

bool differs(const Report& report, int64_t ReportModel::*size) {
  int64_t first = 0;
  for (const ReportModel& model : report.models) {
    if (first > 0 && model.*size > 0 && model.*size != first) return true;
    if (first == 0) first = model.*size;
  }
  return false;
}

std::string escape_markdown(std::string_view text) {
  std::string out;
  for (const char c : printable(text)) {
    if (c == '<') {
      out += "&lt;";
      continue;
    }
    if (c == '&') {
      out += "&amp;";
      continue;
    }
    if (std::string_view("\\`*_[]|#").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string table_markdown(const ReportTable& table) {
  std::string text = markdown_row(table.header) + "|";
  for (const bool is_text : table.is_text) text += is_text ? " --- |" : " ---: |";
  text += "\n";
  for (const auto& row : table.rows) text += markdown_row(row);
  return text + (table.note.empty() ? "\n" : "\n" + table.note + "\n\n");
}

ReportMasks mask_series(const std::vector<std::map<std::string, double>>& metrics) {
  ReportMasks masks;
  for (const auto& line : metrics) {
    const auto value = [&](const char* key, size_t layer) {
      const auto found = line.find(fmt::format("{}.{}", key, layer));
      return found == line.end() ? kAbsent : found->second;
    };
    if (!line.contains("sharpness.0") && !line.contains("kept_share.0")) continue;
    size_t num_layers = 0;
    while (line.contains(fmt::format("sharpness.{}", num_layers)) ||
           line.contains(fmt::format("kept_share.{}", num_layers)))
      ++num_layers;
    if (masks.layers.empty()) masks.layers.resize(num_layers);
    const auto step = line.find("step");
    masks.step.push_back(step == line.end() ? static_cast<double>(masks.step.size()) : step->second);
    for (size_t layer = 0; layer < masks.layers.size(); ++layer) {
      masks.layers[layer].kept_share.push_back(value("kept_share", layer));
      masks.layers[layer].sharpness.push_back(value("sharpness", layer));
      masks.layers[layer].churn.push_back(value("churn", layer));
    }
  }
  return masks;
}

std::string report_json(const Report& report) {
  OrderedJson json = {{"recipe", report.recipe}, {"verdict", verdict_of(report)}};
  if (const ReportModel* judged = judged_model(report)) json["judged"] = judged->name;
  json["comparisons"] = OrderedJson::array();
  for (const ReportComparison& row : comparisons_of(report)) json["comparisons"].push_back(comparison_json(row));
  json["stages"] = OrderedJson::array();
  for (const ReportStage& stage : report.stages) json["stages"].push_back(stage_json(stage));
  json["models"] = OrderedJson::array();
  for (const ReportModel& model : report.models) json["models"].push_back(model_json(report, model));
  for (const ReportSpeed& speed : report.speeds) json["speeds"].push_back(speed_json(speed));
  if (!report.masks.stage.empty()) json["masks"] = masks_json(report.masks);
  for (const ReportRefit& refit : report.refits) json["refits"].push_back(refit_json(refit));
  json["checks"] = OrderedJson::array();
  for (const ReportCheck& check : report.checks)
    json["checks"].push_back({{"name", check.name}, {"text", check.text}, {"passed", check.passed}});
  put(json, "bytes_per_token", report.bytes_per_token);
  json["versions"] = OrderedJson::object();
  for (const auto& [key, value] : report.versions) json["versions"][key] = value;
  json["machine"] = OrderedJson::object();
  for (const auto& [key, value] : report.machine) json["machine"][key] = value;
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::string report_markdown(const Report& report, const std::string& picture) {
  constexpr const char* kHeadings[] = {"Models", "Speed and size",      "Training", "Masks", "Costs",
                                       "Checks", "Versions and machine"};
  const std::vector<std::string> verdict = verdict_sentences(report);
  std::string text = fmt::format("# Report of {}\n\n", escape_markdown(report.recipe));
  for (size_t i = 0; i < verdict.size(); ++i)
    text += i == 0 ? "**" + escape_markdown(verdict[i]) + "**" : " " + escape_markdown(verdict[i]);
  text += "\n\n";
  if (const ReportTable table = comparisons_table(report); !table.rows.empty()) text += table_markdown(table);
  if (!picture.empty())
    text += fmt::format("![Loss curves, the mask over time and the models side by side]({})\n\n", picture);
  int last_section = -1;
  for (const ReportTable& table : report_tables(report)) {
    const int section = static_cast<int>(table.section);
    if (section != last_section) text += fmt::format("## {}\n\n", kHeadings[section]);
    if (section == last_section || table.title != kHeadings[section])
      text += fmt::format("### {}\n\n", escape_markdown(table.title));
    last_section = section;
    text += table_markdown(table);
  }
  return text;
}

}  // namespace coppice
