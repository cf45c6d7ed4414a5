// Which documents stand before a question as examples, chosen as lm-evaluation-harness 0.4 chooses them: the first
// ones, or drawn by Python's random.Random(1234), one stream for all questions of a task.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/tasks/python_random.h"
#include "src/tasks/task_definition.h"

namespace coppice {

class FewshotExamples {
 public:
  /// `pool`: the documents to choose from, processed already; they outlive this. `where`: their file, for messages.
  FewshotExamples(const TaskDefinition& task, std::span<const Json> pool, std::string where);
  /// The examples of one document; to be asked for in the order of the documents. UserError::bad_file when the pool is
  /// too small.
  std::vector<const Json*> choose(const Json& document);

 private:
  const TaskDefinition& task_;
  std::span<const Json> pool_;
  std::string where_;
  PythonRandom random_;
};

}  // namespace coppice
