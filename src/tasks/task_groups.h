// What lm-evaluation-harness 0.4 reports of several tasks together: MMLU over its subjects, and over those of each
// category.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/tasks/task_scores.h"

namespace coppice {

struct ScoredTask {
  const PreparedTask* task = nullptr;
  TaskScore score;
};

struct TaskGroup {
  std::string name, alias;
  std::string version;                // "N/A" without one
  size_t depth = 0;                   // groups around it
  size_t first = 0, end = 0;          // its tasks
  std::vector<std::string> children;  // groups and tasks right below it
  int64_t num_documents = 0;
  std::vector<TaskMetric> metrics;  // those that are means
};

/// The groups that the tasks name, each before those within it; tasks of one group stand side by side.
///   value = sum n_i value_i / N, standard error = sqrt(sum (n_i - 1) n_i error_i^2 / (N - k) / N)
/// for k tasks of n_i documents, N in all: aggregate_subtask_metrics and pooled_sample_stderr of the harness. No
/// standard error where a task has none.
std::vector<TaskGroup> task_groups(std::span<const ScoredTask> tasks);

}  // namespace coppice
