// What a task asks of a model, document by document, as lm-evaluation-harness 0.4 puts it together:
//   description + examples + question, where an example is question + target_delimiter + answer + fewshot_delimiter;
//   multiple_choice: one request a choice (context, target_delimiter + choice); a doc_to_text that is a number makes
//   the choices the contexts and doc_to_target what follows ("partial evaluation").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/tasks/task_file.h"

namespace coppice {

/// A text and how it goes on: judged, or (generate_until) still to be written.
struct TaskRequest {
  std::string context, continuation;
};

struct TaskDocument {
  Json document;
  std::string where;                    // file:line
  std::vector<TaskRequest> requests;    // in the order of the choices
  Json target;                          // as doc_to_target gives it
  std::vector<std::string> choices;     // multiple_choice
  std::vector<size_t> gold;             // multiple_choice: the right choices
  std::vector<std::string> references;  // generate_until: the right answers
};

struct PreparedTask {
  TaskDefinition definition;
  std::vector<TaskDocument> documents;
  int64_t documents_in_file = 0;  // without a limit
};

struct TaskOptions {
  std::optional<int64_t> num_fewshot;  // instead of the task's own
  int64_t limit = 0;                   // documents of a task, or a subtask, at most; 0: all
};

/// Reads the documents and makes the requests. UserError::bad_file with file:line for a document that the task cannot
/// be asked about: a field that is missing, fewer than two choices, an empty one, an answer that is no choice.
PreparedTask prepare_task(const TaskFile& file, const TaskOptions& options = {});
/// The same, each subtask of the file by itself (split_task).
std::vector<PreparedTask> prepare_subtasks(const TaskFile& file, const TaskOptions& options = {});

}  // namespace coppice
