#include "src/tasks/task_groups.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/tasks/python_text.h"

namespace coppice {
namespace {

/// The group `depth` places deep in the path of a task's groups.
TaskGroup make_group(const TaskDefinition& task, size_t depth) {
  TaskGroup group{.name = task.groups[depth], .depth = depth};
  group.alias = group.name;
  if (depth > 0)  // mmlu_social_sciences of mmlu: "social sciences"
    group.alias = replace_all(group.name.substr(task.groups[depth - 1].size() + 1), "_", " ");
  const Json& version = task.group_version;
  group.version = version.is_null() ? "N/A" : version.is_string() ? version.get<std::string>() : version.dump();
  return group;
}

/// The m-th metric of every task, pooled.
TaskMetric pooled(std::span<const ScoredTask> tasks, size_t m) {
  TaskMetric metric = tasks[0].score.metrics[m];
  double value = 0, squares = 0, documents = 0;
  bool has_errors = true;
  for (const ScoredTask& one : tasks) {
    const TaskMetric& own = one.score.metrics[m];
    COPPICE_CHECK(own.name == metric.name && own.filter == metric.filter, "tasks of one group share their metrics");
    const auto n = static_cast<double>(one.task->documents.size());
    value += n * own.value;
    documents += n;
    has_errors &= own.standard_error.has_value();
    const double error = own.standard_error.value_or(0);
    squares += (n - 1) * n * error * error;
  }
  metric.value = value / documents;
  metric.standard_error.reset();
  if (has_errors)
    metric.standard_error = std::sqrt(squares / (documents - static_cast<double>(tasks.size())) / documents);
  return metric;
}

}  // namespace

std::vector<TaskGroup> task_groups(std::span<const ScoredTask> tasks) {
  std::vector<TaskGroup> groups;
  std::vector<size_t> open;  // in `groups`, the widest first
  for (size_t t = 0; t < tasks.size(); ++t) {
    const TaskDefinition& task = tasks[t].task->definition;
    size_t shared = 0;
    while (shared < std::min(open.size(), task.groups.size()) && groups[open[shared]].name == task.groups[shared])
      ++shared;
    open.resize(shared);
    for (size_t depth = shared; depth < task.groups.size(); ++depth) {
      if (depth > 0) groups[open.back()].children.push_back(task.groups[depth]);
      open.push_back(groups.size());
      groups.push_back(make_group(task, depth));
      groups.back().first = t;
    }
    for (const size_t group : open) {
      groups[group].end = t + 1;
      groups[group].num_documents += std::ssize(tasks[t].task->documents);
    }
    if (!open.empty()) groups[open.back()].children.push_back(task.name);
  }
  for (TaskGroup& group : groups) {
    const std::span<const ScoredTask> own = tasks.subspan(group.first, group.end - group.first);
    for (size_t m = 0; m < own[0].score.metrics.size(); ++m)
      if (own[0].score.metrics[m].is_mean) group.metrics.push_back(pooled(own, m));
  }
  return groups;
}

}  // namespace coppice
