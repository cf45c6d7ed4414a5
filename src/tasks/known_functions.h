// The Python functions that task files of lm-evaluation-harness 0.4 name with `!function`, for the tasks that coppice
// knows: each adds to a document what the harness' function makes of it.
#pragma once

#include <string>

#include "src/base/json.h"
#include "src/tasks/task_definition.h"

namespace coppice {

struct KnownFunctions {
  ProcessDocument process = nullptr;
  Json doc_to_text, doc_to_target, doc_to_choice;  // over the fields that `process` adds; null: the task's own
};
/// What stands for every `!function` of a task's mapping; `about`: its task and dataset. UserError::bad_file at `where`
/// for one that is not known.
KnownFunctions known_functions(const Json& config, const std::string& about, const std::string& where);

/// HellaSwag's cleaning of text that came from WikiHow.
std::string clean_hellaswag(std::string_view text);

}  // namespace coppice
