// Results as lm-evaluation-harness 0.4 writes them, and as a table for people.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/tasks/task_groups.h"

namespace coppice {

struct ScoredModel {
  std::string name;  // as the user gave it
  int64_t max_length = 0;
  std::vector<ScoredTask> tasks;
  std::string device = "cpu", dtype = "float32";  // where it was read, and what it computed in
};

/// {"results": {<task or group>: {"alias", "<metric>,<filter>", "<metric>_stderr,<filter>", "sample_len"}}, "groups":
/// the groups' rows again, "group_subtasks": {<group>: [<group or task>]}, "configs", "versions", "n-shot",
/// "higher_is_better", "n-samples", "config", "model_name", ...}
Json results_json(const ScoredModel& model);
/// A Markdown table, a line a model, task and metric; a group stands above what belongs to it.
std::string results_table(std::span<const ScoredModel> models);
/// Accuracy by the place of what is asked for: a line a model and length, ten depths across, of groups whose tasks are
/// called <group>_depth_<percent> (`coppice data long-qa` makes them). Empty without any.
std::string depth_table(std::span<const ScoredModel> models);

}  // namespace coppice
