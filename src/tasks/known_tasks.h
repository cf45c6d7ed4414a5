// The tasks that coppice knows by name or by the fields of their lines, as they lie on the Hugging Face hub (JSONL, or
// Parquet written as JSONL): the definitions of lm-evaluation-harness 0.4, written as its task files are.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/tasks/task_definition.h"

namespace coppice {

/// Names, in the order of the table.
std::vector<std::string> known_task_names();
bool is_known_task(std::string_view name);
/// The definition; `name` is one of the table.
TaskDefinition known_task(std::string_view name);
/// The name of the task whose fields a line has; `file_name` tells apart those with the same ones. "" for none.
std::string recognised_task(const Json& document, std::string_view file_name);

inline constexpr std::string_view kChoicesTask = "choices";  // {"context", "choices", "answer"}: our own form
inline constexpr std::string_view kTextTask = "ppl";         // plain documents, for perplexity

}  // namespace coppice
