#include "src/tasks/task_results.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/tasks/python_text.h"

namespace coppice {
namespace {

std::string version_text(const Json& version) {
  if (version.is_null()) return "";
  return version.is_string() ? version.get<std::string>() : version.dump();
}

}  // namespace

Json results_json(const ScoredModel& model) {
  Json json = {{"results", Json::object()},
               {"group_subtasks", Json::object()},
               {"configs", Json::object()},
               {"versions", Json::object()},
               {"n-shot", Json::object()},
               {"higher_is_better", Json::object()},
               {"n-samples", Json::object()},
               {"model_source", "coppice"},
               {"model_name", model.name},
               {"max_length", model.max_length},
               {"config", {{"model", "coppice"}, {"model_args", "pretrained=" + model.name}}}};
  for (const auto& [task, score] : model.tasks) {
    const TaskDefinition& definition = task->definition;
    const std::string& name = definition.name;
    Json row = {{"name", name}, {"alias", definition.alias}, {"sample_len", task->documents.size()}};
    for (const TaskMetric& metric : score.metrics) {
      row[metric.name + "," + metric.filter] = metric.value;
      row[metric.name + "_stderr," + metric.filter] =
          metric.standard_error ? Json(*metric.standard_error) : Json("N/A");
      json["higher_is_better"][name][metric.name] = metric.higher_is_better;
    }
    json["results"][name] = std::move(row);
    json["group_subtasks"][name] = Json::array();
    json["configs"][name] = definition.config;
    json["configs"][name]["task"] = name;
    json["configs"][name]["num_fewshot"] = definition.num_fewshot;
    json["versions"][name] = definition.version;
    json["n-shot"][name] = definition.num_fewshot;
    json["n-samples"][name] = {{"original", task->documents_in_file}, {"effective", task->documents.size()}};
  }
  return json;
}

std::string results_table(std::span<const ScoredModel> models) {
  using Line = std::array<std::string, 9>;
  std::vector<Line> lines = {{"Model", "Task", "Version", "Filter", "n-shot", "Metric", "", "Value", "Stderr"}};
  for (const ScoredModel& model : models) {
    std::string model_name = printable(model.name);
    for (const auto& [task, score] : model.tasks) {
      Line line = {model_name, printable(task->definition.alias), printable(version_text(task->definition.version))};
      line[4] = std::to_string(task->definition.num_fewshot);
      for (const TaskMetric& metric : score.metrics) {
        line[3] = printable(metric.filter);
        line[5] = metric.name;
        line[6] = metric.higher_is_better ? "\u2191" : "\u2193";
        line[7] = fmt::format("{:.4f}", metric.value);
        line[8] = metric.standard_error ? fmt::format("\u00b1 {:.4f}", *metric.standard_error) : "N/A";
        lines.push_back(line);
        line[0] = line[1] = line[2] = "";
      }
      model_name.clear();
    }
  }
  Line rules;
  std::array<size_t, std::tuple_size_v<Line>> widths{};
  for (const Line& line : lines)
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], count_code_points(line[i]));
  for (size_t i = 0; i < rules.size(); ++i) rules[i] = std::string(widths[i], '-');
  lines.insert(lines.begin() + 1, rules);
  std::string text;
  for (const Line& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      const bool number = i == 4 || i == 7 || i == 8;
      const std::string padding(widths[i] - count_code_points(line[i]), ' ');
      text += "| " + (number ? padding + line[i] : line[i] + padding) + " ";
    }
    text += "|\n";
  }
  return text;
}

}  // namespace coppice
