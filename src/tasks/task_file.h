// Task files as a user names them, and the documents in them.
//   FILE.jsonl        recognised by the fields of its first line, or by its name; FILE.txt and folders: text for `ppl`
//   NAME=FILE.jsonl   a task of known_tasks.h
//   FILE.yaml         a task file of lm-evaluation-harness; the data where its dataset_kwargs.data_files says
//   FILE.yaml=FILE.jsonl
// Lines are JSON objects, plain or .gz or .zst; `ppl` reads any corpus (src/text/documents.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/tasks/task_definition.h"

namespace coppice {

/// One line, parsed.
struct TaskLine {
  Json document;
  std::string where;  // file:line
};

struct TaskFile {
  TaskDefinition definition;
  std::filesystem::path data, fewshot;  // fewshot: empty = none named
  bool corpus = false;                  // the data is any corpus, read as documents
  bool recognised = false;              // by its lines: worth a word to the user
};

/// The task's name, by its file alone; UserError::bad_file where the ending is none of lines.
std::string task_name(const std::filesystem::path& file);
/// What `--tasks` names. UserError::bad_file for a file that is not there or no task, UserError::recipe for a name that
/// is not known.
TaskFile open_task_file(const std::string& argument);
/// A file of our own form, {"context", "choices", "answer"}, as a task of the file's name.
TaskFile choices_file(const std::filesystem::path& file);
/// All lines of a file that are not blank. UserError::bad_file with file:line for a line that is no JSON object or
/// longer than 1 MiB (`ppl`: 64 MB), for a file without a line, and above 2 GiB of text.
std::vector<TaskLine> read_task_lines(const std::filesystem::path& file);
/// The documents of a corpus as lines {"id", "text"}.
std::vector<TaskLine> read_text_lines(const std::filesystem::path& corpus);

}  // namespace coppice
