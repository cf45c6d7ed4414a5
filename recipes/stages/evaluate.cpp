#include "recipes/stages/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "recipes/language/identity.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/language/sources.h"
#include "recipes/language/training_options.h"
#include "recipes/stages/context.h"
#include "recipes/stages/import.h"
#include "recipes/stages/measure_speed.h"
#include "recipes/stages/score_tasks.h"
#include "recipes/stages/stage_cost.h"
#include "recipes/stages/stages.h"
#include "src/evaluate/copying.h"
#include "src/model/parameters.h"
#include "src/tasks/task_requests.h"
#include "src/tensors/calibrated_cross_entropy.h"

namespace coppice {
namespace {

constexpr int64_t kMaxSpeedTokens = 1 << 16;

std::any read(OptionTable& table, const Recipe& recipe, uint64_t) {
  EvaluateStage evaluate;
  table.call_count("tokens");
  table.read(evaluate);
  check(!evaluate.of.empty(), table.where("of"), "of: expected at least one stage name");
  for (const std::string& name : evaluate.of) check_input(recipe.stages, name, model_kinds(), table.where("of"), "of");
  if (evaluate.teacher.empty()) evaluate.teacher = evaluate.of[0];
  check_input(recipe.stages, evaluate.teacher, model_kinds(), table.where("teacher"), "teacher");
  check_split(evaluate.split, recipe.data, table.where("split"), "split");
  check(evaluate.seq_len >= 2 && evaluate.batch_tokens > 0 && evaluate.tokens >= 0, table.where(),
        "seq_len, batch_tokens and tokens must be positive");
  check(evaluate.speed_tokens == 0 || (evaluate.speed_tokens >= 2 && evaluate.speed_tokens <= kMaxSpeedTokens),
        table.where("speed_tokens"),
        fmt::format("speed_tokens: got {}, expected 0 (not measured) or 2 to {}", evaluate.speed_tokens,
                    kMaxSpeedTokens));
  std::set<std::string> task_names;
  for (const std::string& file : evaluate.tasks)
    check(task_names.insert(task_name(file)).second, table.where("tasks"),
          fmt::format("tasks: two files named '{}'", task_name(file)));
  return evaluate;
}

std::vector<std::string> inputs(const Stage& stage) {
  const auto& evaluate = stage.get<EvaluateStage>();
  std::vector<std::string> names = evaluate.of;
  if (std::ranges::find(names, evaluate.teacher) == names.end()) names.push_back(evaluate.teacher);
  return names;
}

void check_models(const Recipe& recipe, const Stage& stage) {
  for (const std::string& name : stage.inputs())
    check_attention_window(recipe, stage, name, "seq_len", stage.get<EvaluateStage>().seq_len);
  const int64_t speed_tokens = stage.get<EvaluateStage>().speed_tokens;
  if (speed_tokens == 0) return;
  for (const std::string& name : stage.get<EvaluateStage>().of) {
    const int64_t positions = recipe.model_after(name).max_position_embeddings;
    check(2 * speed_tokens <= positions, stage.where,
          fmt::format(
              "{}: speed_tokens: got {}, but the model of stage '{}' has {} positions, for prompt and new tokens; "
              "expected at most {}",
              stage.name, speed_tokens, name, positions, positions / 2));
    check_attention_window(recipe, stage, name, "speed_tokens, prompt and new ones,", 2 * speed_tokens);
  }
}

std::vector<OutsideSource> needs(const Recipe&, const Stage& stage) {
  std::vector<OutsideSource> needs;
  for (const std::string& file : stage.get<EvaluateStage>().tasks) needs.push_back({file, "it scores these tasks"});
  return needs;
}

Json identity(const Recipe& recipe, const Stage& stage) {
  const auto& evaluate = stage.get<EvaluateStage>();
  Json json = deciding(evaluate);
  if (evaluate.speed_tokens == 0) json.erase("speed_tokens");
  if (evaluate.split == EvaluateStage().split) json.erase("split");
  if (!evaluate.tasks.empty()) json["tasks"] = tasks_identity(evaluate.tasks, *recipe.sources);
  return json;
}

/// Tokens whose forward passes take the time of measuring one model's speed, a warm-up of the prompt included: at batch
/// 1 a new token reads all weights for its few FLOPs, which costs what about five tokens of a prompt do.
double tokens_of_speed(int64_t speed_tokens) {
  constexpr double kPromptTokensOfNewToken = 5;
  return kSpeedTurns * (2 + kPromptTokensOfNewToken) * static_cast<double>(speed_tokens);
}

/// Tokens that a model reads for tasks: about one a byte of their files, because each choice is read behind its
/// context, which its line holds once.
double task_tokens(const std::vector<std::string>& files) {
  double bytes = 0;
  std::error_code missing;
  for (const std::string& file : files)
    if (const auto size = std::filesystem::file_size(file, missing); !missing) bytes += static_cast<double>(size);
  return bytes;
}

/// FLOPs of the probes of one model, which no count of its tokens holds: the calibration of every logit, and the random
/// tokens that it reads.
double probe_flops(const ModelConfig& config, const EvaluateStage& evaluate, double windows) {
  return windows * static_cast<double>(config.vocab_size) * kCalibrationFlopsPerLogit +
         copying_tokens(evaluate.seq_len) * forward_flops_per_token(config, evaluate.seq_len);
}

void cost(const CostBasis& basis, const Stage& stage, StageCost& cost) {
  const auto& evaluate = stage.get<EvaluateStage>();
  cost.share_of_gemm = kForwardShareOfGemm;
  const double there = basis.tokens_of(evaluate.split),
               windows = evaluate.tokens > 0 ? std::min(static_cast<double>(evaluate.tokens), there) : there;
  const double tokens = windows + task_tokens(evaluate.tasks);
  cost.one_model_at_once = true;
  if (std::ranges::find(evaluate.of, evaluate.teacher) == evaluate.of.end()) {
    const ModelConfig teacher = basis.recipe.model_after(evaluate.teacher);
    cost.uncounted_flops = windows * forward_flops_per_token(teacher, evaluate.seq_len);
    cost.work.push_back(reading_work(teacher, evaluate.seq_len, windows));
  }
  for (const std::string& name : evaluate.of) {
    const ModelConfig config = basis.recipe.model_after(name);
    cost.tokens += tokens;
    cost.flops += tokens * forward_flops_per_token(config, evaluate.seq_len);
    cost.uncounted_flops += probe_flops(config, evaluate, windows);
    if (evaluate.speed_tokens > 0)
      cost.uncounted_flops +=
          tokens_of_speed(evaluate.speed_tokens) * forward_flops_per_token(config, 2 * evaluate.speed_tokens);
    cost.memory_bytes = std::max(cost.memory_bytes, model_bytes(config));
    cost.work.push_back(reading_work(config, evaluate.seq_len, tokens + copying_tokens(evaluate.seq_len)));
  }
}

void check_early(const BeforeWork& before, const Stage& stage) {
  auto options = stage.get<EvaluateStage>();
  if (before.missing == Missing::allowed)
    std::erase_if(options.tasks, [](const std::string& file) { return !std::filesystem::exists(file); });
  if (before.tokenizer != nullptr)
    TaskScorer(before.recipe, options, *before.tokenizer);
  else
    for (const std::string& file : options.tasks)
      check_task(before.recipe, options.split, prepare_task(choices_file(file)));
}

}  // namespace

const StageKind kEvaluate = {.kind = "evaluate",
                             .computes = true,
                             .options = option_lines<EvaluateStage>,
                             .read = read,
                             .inputs = inputs,
                             .check_models = check_models,
                             .needs = needs,
                             .identity = identity,
                             .cost = cost,
                             .check = check_early,
                             .run = run_evaluate};

}  // namespace coppice
