// One file, several tasks: MMLU's questions name their subject, and each subject is a task of its own, as in
// lm-evaluation-harness, which reports them in groups: mmlu, mmlu_stem, mmlu_abstract_algebra.
#pragma once

#include <vector>

#include "src/tasks/task_file.h"

namespace coppice {

struct Subtask {
  TaskDefinition definition;
  std::vector<TaskLine> lines;
};

/// By TaskDefinition::subtask_field, where the lines have it: NAME_VALUE in the group NAME, a subject of MMLU's in
/// NAME_CATEGORY within it, sorted as the harness' table is. Otherwise the whole. UserError::bad_file for a line
/// without the field where others have it, and for more than a thousand values.
std::vector<Subtask> split_task(Subtask whole);

}  // namespace coppice
