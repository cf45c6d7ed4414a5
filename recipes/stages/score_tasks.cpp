#include "recipes/stages/score_tasks.h"
#include "recipes/language/sources.h"
#include "recipes/stages/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/text/documents.h"

namespace coppice {
namespace {

int64_t code_points(const std::string& text) {
  return std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

}  // namespace

TaskScore score_items(const std::vector<TaskItem>& items, const std::vector<double>& sums) {
  double right = 0, right_norm = 0;
  size_t first = 0;
  for (const TaskItem& item : items) {
    size_t best = 0, best_norm = 0;
    const auto norm = [&](size_t i) { return sums.at(first + i) / static_cast<double>(code_points(item.choices[i])); };
    for (size_t i = 1; i < item.choices.size(); ++i) {
      if (sums.at(first + i) > sums.at(first + best)) best = i;
      if (norm(i) > norm(best_norm)) best_norm = i;
    }
    right += best == item.answer;
    right_norm += best_norm == item.answer;
    first += item.choices.size();
  }
  const auto n = static_cast<double>(items.size());
  const double acc = right / n;
  // of zeros and ones: sum of (x - mean)^2 = n mean (1 - mean)
  return {.acc = acc,
          .acc_norm = right_norm / n,
          .stderr_of_acc = std::sqrt(n * acc * (1 - acc) / (n - 1)) / std::sqrt(n),
          .items = std::ssize(items)};
}

TaskScorer::TaskScorer(const Recipe& recipe, const EvaluateStage& stage, const Tokenizer& tokenizer) {
  int64_t max_length = std::numeric_limits<int64_t>::max();
  for (const std::string& model : stage.of)
    max_length = std::min(max_length, recipe.model_after(model).max_position_embeddings);
  for (const std::string& file : stage.tasks) {
    Task task = read_task(file);
    check_task(recipe, task);
    std::vector<Continuation> continuations;
    for (const TaskItem& item : task.items) {
      for (size_t choice = 0; choice < item.choices.size(); ++choice) {
        EncodedChoice encoded = encode_choice(tokenizer, item, choice);
        if (std::ssize(encoded.continuation) > max_length)
          throw UserError::bad_file(
              item.where,
              fmt::format("choices[{}]: is {} tokens long, and a model that is evaluated knows {} positions", choice,
                          encoded.continuation.size(), max_length));
        continuations.push_back({std::move(encoded.context), std::move(encoded.continuation)});
      }
    }
    tasks_.push_back(std::move(task));
    continuations_.push_back(std::move(continuations));
  }
}

Json TaskScorer::score(const Model& model, int64_t batch_tokens, const std::function<void()>& before_batch) const {
  Json result = Json::object();
  double sum = 0;
  for (size_t t = 0; t < tasks_.size(); ++t) {
    const TaskScore score = score_items(
        tasks_[t].items, continuation_log_likelihoods(model, continuations_[t], batch_tokens, before_batch));
    Json& row =
        result["tasks"][tasks_[t].name] = {{"acc", score.acc}, {"acc_norm", score.acc_norm}, {"items", score.items}};
    if (std::isfinite(score.stderr_of_acc)) row["stderr"] = score.stderr_of_acc;
    sum += score.acc;
  }
  if (!tasks_.empty()) result["task_accuracy"] = sum / static_cast<double>(tasks_.size());
  return result;
}

int64_t TaskScorer::num_tokens() const {
  int64_t tokens = 0;
  for (const auto& continuations : continuations_)
    for (const Continuation& one : continuations) tokens += std::ssize(one.context) + std::ssize(one.continuation) - 1;
  return tokens;
}

void check_task(const Recipe& recipe, const Task& task) {
  for (const TaskItem& item : task.items)
    for (const std::string& id : item.documents)
      if (!is_heldout(id, recipe.data.heldout_share))
        throw UserError::bad_file(
            item.where,
            fmt::format(
                "made of document '{}', which this recipe trains on (data.heldout_share = {}); make the task again "
                "from this recipe: coppice data tasks",
                printable(id), recipe.data.heldout_share));
}

Json tasks_identity(const std::vector<std::string>& files, Sources& sources) {
  Json identity = Json::array();
  std::error_code error;
  for (const std::string& file : files) {
    const bool known = std::filesystem::exists(file, error) || sources.recorded("task", file);
    identity.push_back(
        {{"name", task_name(file)},
         {"sha256", known ? sources.look_text("task", file, [&] { return sha256_file(file); }) : std::string()}});
  }
  return identity;
}

}  // namespace coppice
