// Multiple-choice tasks, scored as lm-evaluation-harness does: a choice's score is the log-probability of its tokens
// after the context.
//   acc: the choice with the highest sum (the first of equals) is the right one; acc_norm: the same with every sum
//   divided by the choice's code points
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "recipes/language/recipe.h"
#include "src/base/json.h"
#include "src/data/tasks.h"
#include "src/model/continuations.h"

namespace coppice {

struct EvaluateStage;

struct TaskScore {
  double acc = 0, acc_norm = 0;
  double stderr_of_acc = 0;  // sample standard deviation / sqrt(items); NaN for one item
  int64_t items = 0;
};

/// From the sum of every choice, item by item.
TaskScore score_items(const std::vector<TaskItem>& items, const std::vector<double>& sums);

/// Tasks of an evaluate stage as token ids: encoded once, for every model.
class TaskScorer {
 public:
  /// UserError::bad_file for a choice longer than one of the models can read, and for an item made of a document that
  /// the recipe trains on.
  TaskScorer(const Recipe& recipe, const EvaluateStage& stage, const Tokenizer& tokenizer);
  bool empty() const { return tasks_.empty(); }
  /// {"tasks": {<name>: {acc, acc_norm, stderr, items}}, "task_accuracy": mean of acc over the tasks}; an empty object
  /// without tasks.
  Json score(const Model& model, int64_t batch_tokens, const std::function<void()>& before_batch) const;
  /// Tokens that one model reads.
  int64_t num_tokens() const;

 private:
  std::vector<Task> tasks_;
  std::vector<std::vector<Continuation>> continuations_;  // of a task: all choices of all items
};

/// UserError::bad_file for an item made of a document that the recipe trains on.
void check_task(const Recipe& recipe, const Task& task);
/// What decides a task's result: name and hash of each file, "" of one that is not there yet (a plan needs none).
Json tasks_identity(const std::vector<std::string>& files, Sources& sources);

}  // namespace coppice
