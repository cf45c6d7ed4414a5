#include "recipes/stages/score_tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "recipes/language/sources.h"
#include "recipes/stages/evaluate.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/evaluate/answer_task.h"
#include "src/text/documents.h"

namespace coppice {

TaskScorer::TaskScorer(const Recipe& recipe, const EvaluateStage& stage, const Tokenizer& tokenizer)
    : tokenizer_(tokenizer) {
  int64_t max_length = std::numeric_limits<int64_t>::max();
  for (const std::string& model : stage.of)
    max_length = std::min(max_length, recipe.model_after(model).max_position_embeddings);
  for (const std::string& file : stage.tasks) {
    tasks_.push_back(prepare_task(choices_file(file)));
    check_task(recipe, stage.split, tasks_.back());
    encoded_.push_back(encode_task(tokenizer, tasks_.back(), /*add_bos=*/false, max_length));
    tokens_.push_back(coppice::num_tokens(tasks_.back(), encoded_.back(), max_length));
  }
}

Json TaskScorer::score(const Model& model, int64_t batch_tokens,
                       const std::function<void(uint64_t)>& before_batch) const {
  Json result = Json::object();
  double sum = 0;
  uint64_t tokens_done = 0;
  for (size_t t = 0; t < tasks_.size(); ++t) {
    const auto answers = answer_task(model, tokenizer_, tasks_[t], encoded_[t], batch_tokens,
                                     [&](uint64_t tokens) { before_batch(tokens_done + tokens); });
    tokens_done += tokens_[t];
    const TaskScore score = score_task(tasks_[t], answers);
    Json& row = result["tasks"][tasks_[t].definition.name] = {{"items", tasks_[t].documents.size()}};
    for (const TaskMetric& metric : score.metrics) {
      if (metric.name == "acc" || metric.name == "acc_norm") row[metric.name] = metric.value;
      if (metric.name != "acc") continue;
      sum += metric.value;
      if (metric.standard_error) row["stderr"] = *metric.standard_error;
    }
  }
  if (!tasks_.empty()) result["task_accuracy"] = sum / static_cast<double>(tasks_.size());
  return result;
}

uint64_t TaskScorer::num_tokens() const { return std::accumulate(tokens_.begin(), tokens_.end(), uint64_t{0}); }

void check_task(const Recipe& recipe, const std::string& split, const PreparedTask& task) {
  const DataOptions& data = recipe.data;
  for (const TaskDocument& item : task.documents) {
    if (!item.document.contains("documents")) continue;
    for (const Json& entry : item.document["documents"]) {
      const auto& id = entry.get_ref<const std::string&>();
      const bool is_held = is_heldout(id, data.heldout_share), tunes = is_tuning(id, data.tuning_share);
      if (split == "tuning" ? tunes : is_held) continue;
      throw UserError::bad_file(
          item.where,
          fmt::format("made of document '{}', which this recipe {} (data.heldout_share = {}, data.tuning_share = {}), "
                      "and the stage scores on {} text; {}",
                      printable(id),
                      is_held ? "holds out"
                      : tunes ? "sets aside for tuning"
                              : "trains on",
                      data.heldout_share, data.tuning_share, split == "tuning" ? "tuning" : "held-out",
                      split == "tuning" ? "leave it to a stage that scores on held-out text"
                                        : "make the task again from this recipe: coppice data tasks"));
    }
  }
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
