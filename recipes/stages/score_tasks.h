// Multiple-choice tasks of an evaluate stage, in our own form, scored as `coppice eval` scores them (src/tasks).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "recipes/language/recipe.h"
#include "src/base/json.h"
#include "src/model/decoder.h"
#include "src/tasks/encode_request.h"

namespace coppice {

struct EvaluateStage;

/// Tasks of an evaluate stage as token ids: encoded once, for every model.
class TaskScorer {
 public:
  /// The tokenizer outlives this. UserError::bad_file for a choice longer than one of the models can read, and for an
  /// item made of a document of another split than the stage's.
  TaskScorer(const Recipe& recipe, const EvaluateStage& stage, const Tokenizer& tokenizer);
  bool empty() const { return tasks_.empty(); }
  /// {"tasks": {<name>: {acc, acc_norm, stderr, items}}, "task_accuracy": mean of acc over the tasks}; an empty object
  /// without tasks.
  /// `before_batch` gets the tokens that are done, of num_tokens.
  Json score(const Model& model, int64_t batch_tokens, const std::function<void(uint64_t)>& before_batch) const;
  /// Tokens that one model reads.
  uint64_t num_tokens() const;

 private:
  const Tokenizer& tokenizer_;
  std::vector<PreparedTask> tasks_;
  std::vector<EncodedTask> encoded_;
  std::vector<uint64_t> tokens_;  // of each task
};

/// UserError::bad_file for an item made of a document that does not fall into `split`: one that the recipe trains on,
/// or one of the other split.
void check_task(const Recipe& recipe, const std::string& split, const PreparedTask& task);
/// What decides a task's result: name and hash of each file, "" of one that is not there yet (a plan needs none).
Json tasks_identity(const std::vector<std::string>& files, Sources& sources);

}  // namespace coppice
