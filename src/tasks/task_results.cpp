#include "src/tasks/task_results.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "src/base/errors.h"
#include "src/tasks/python_text.h"
#include "src/text/text_encoding.h"

namespace coppice {
namespace {

using Line = std::vector<std::string>;

constexpr size_t kNumDepths = 10;

std::string version_text(const Json& version) {
  if (version.is_null()) return "";
  return version.is_string() ? version.get<std::string>() : version.dump();
}

/// A task's or group's row of "results", and what is said of its metrics elsewhere.
void add_row(Json& json, const std::string& name, const std::string& alias, size_t num_documents, int64_t num_fewshot,
             const std::vector<TaskMetric>& metrics) {
  Json& row = json["results"][name] = {{"name", name}, {"alias", alias}, {"sample_len", num_documents}};
  for (const TaskMetric& metric : metrics) {
    row[metric.name + "," + metric.filter] = metric.value;
    row[metric.name + "_stderr," + metric.filter] = metric.standard_error ? Json(*metric.standard_error) : Json("N/A");
    json["higher_is_better"][name][metric.name] = metric.higher_is_better;
  }
  json["n-shot"][name] = num_fewshot;
}

void add_group(Json& json, const TaskGroup& group, int64_t num_fewshot) {
  add_row(json, group.name, group.alias, static_cast<size_t>(group.num_documents), num_fewshot, group.metrics);
  Json& row = json["results"][group.name];
  for (const TaskMetric& metric : group.metrics)
    row["sample_count"][metric.name + "," + metric.filter] = group.num_documents;
  json["groups"][group.name] = row;
  json["group_subtasks"][group.name] = group.children;
  json["versions"][group.name] = group.version;
}

std::string indented(size_t depth, const std::string& alias) {
  return depth == 0 ? printable(alias) : std::string(depth, ' ') + "- " + printable(alias);
}

/// A line a metric; what comes before the metric stands in the first one alone. The model's name is said once.
void add_lines(std::vector<Line>& lines, std::string& model, const std::string& name, const std::string& version,
               int64_t num_fewshot, const std::vector<TaskMetric>& metrics) {
  Line line = {model, name, printable(version), "", "", "", "", "", ""};
  line[4] = std::to_string(num_fewshot);
  for (const TaskMetric& metric : metrics) {
    line[3] = printable(metric.filter);
    line[5] = metric.name;
    line[6] = metric.higher_is_better ? "\u2191" : "\u2193";
    line[7] = fmt::format("{:.4f}", metric.value);
    line[8] = metric.standard_error ? fmt::format("\u00b1 {:.4f}", *metric.standard_error) : "N/A";
    lines.push_back(line);
    line[0] = line[1] = line[2] = "";
    model.clear();
  }
}

/// A Markdown table, the first line its header; columns of `numbers` end at one place.
std::string markdown(std::vector<Line> lines, const std::function<bool(size_t column)>& numbers) {
  std::vector<size_t> widths(lines[0].size());
  for (const Line& line : lines)
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], count_code_points(line[i]));
  Line rules;
  for (const size_t width : widths) rules.emplace_back(width, '-');
  lines.insert(lines.begin() + 1, rules);
  std::string text;
  for (const Line& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - count_code_points(line[i]), ' ');
      text += "| " + (numbers(i) ? padding + line[i] : line[i] + padding) + " ";
    }
    text += "|\n";
  }
  return text;
}

std::optional<double> accuracy(const std::vector<TaskMetric>& metrics) {
  const auto found = std::ranges::find(metrics, "acc", &TaskMetric::name);
  return found == metrics.end() ? std::nullopt : std::optional(found->value);
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
               {"config",
                {{"model", "coppice"},
                 {"model_args", "pretrained=" + model.name},
                 {"model_dtype", model.dtype},
                 {"device", model.device}}}};
  for (const auto& [task, score] : model.tasks) {
    const TaskDefinition& definition = task->definition;
    const std::string& name = definition.name;
    add_row(json, name, definition.alias, task->documents.size(), definition.num_fewshot, score.metrics);
    json["configs"][name] = definition.config;
    json["configs"][name]["task"] = name;
    json["configs"][name]["num_fewshot"] = definition.num_fewshot;
    json["versions"][name] = definition.version;
    json["n-samples"][name] = {{"original", task->documents_in_file}, {"effective", task->documents.size()}};
  }
  for (const TaskGroup& group : task_groups(model.tasks))
    add_group(json, group, model.tasks[group.first].task->definition.num_fewshot);
  return json;
}

std::string results_table(std::span<const ScoredModel> models) {
  std::vector<Line> lines = {{"Model", "Task", "Version", "Filter", "n-shot", "Metric", "", "Value", "Stderr"}};
  for (const ScoredModel& model : models) {
    std::string model_name = printable(model.name);
    const std::vector<TaskGroup> groups = task_groups(model.tasks);
    auto group = groups.begin();
    for (size_t t = 0; t < model.tasks.size(); ++t) {
      const TaskDefinition& task = model.tasks[t].task->definition;
      for (; group != groups.end() && group->first == t; ++group)
        add_lines(lines, model_name, indented(group->depth, group->alias), group->version, task.num_fewshot,
                  group->metrics);
      add_lines(lines, model_name, indented(task.groups.size(), task.alias), version_text(task.version),
                task.num_fewshot, model.tasks[t].score.metrics);
    }
  }
  return markdown(std::move(lines), [](size_t column) { return column == 4 || column == 7 || column == 8; });
}

std::string depth_table(std::span<const ScoredModel> models) {
  std::vector<Line> lines = {{"Model", "Accuracy by depth", "all"}};
  for (size_t depth = 0; depth < kNumDepths; ++depth) lines[0].push_back(fmt::format("{}%", 100 * depth / kNumDepths));
  for (const ScoredModel& model : models)
    for (const TaskGroup& group : task_groups(model.tasks)) {
      Line line = {printable(model.name), printable(group.alias), ""};
      line.resize(lines[0].size());
      const auto show = [](std::optional<double> value) { return value ? fmt::format("{:.1f}", 100 * *value) : ""; };
      line[2] = show(accuracy(group.metrics));
      bool any = false;
      for (const auto& [task, score] : std::span(model.tasks).subspan(group.first, group.end - group.first))
        for (size_t depth = 0; depth < kNumDepths; ++depth)
          if (task->definition.name == fmt::format("{}_depth_{}", group.name, 100 * depth / kNumDepths))
            line[3 + depth] = show(accuracy(score.metrics)), any = true;
      if (any) lines.push_back(std::move(line));
    }
  return lines.size() == 1 ? "" : markdown(std::move(lines), [](size_t column) { return column >= 2; });
}

}  // namespace coppice
