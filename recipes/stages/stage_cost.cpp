#include "recipes/stages/stage_cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "recipes/language/training_options.h"
#include "src/model/parameters.h"

namespace coppice {

double activation_bytes_per_token(const ModelConfig& config, Recompute recompute) {
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto attention =
      static_cast<double>((config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim);
  const auto of_layer = [&](int64_t width) { return 8 * hidden + 3 * attention + 5 * static_cast<double>(width); };
  double floats = 0, widest = 0;
  for (const int64_t width : config.intermediate_size) {
    const double all = of_layer(width);
    double kept = hidden;
    if (recompute == Recompute::none) kept = all;
    if (recompute == Recompute::elementwise) kept = 2 * hidden + 3 * attention + 2 * static_cast<double>(width);
    if (recompute == Recompute::gate_up) kept = 2 * hidden + 3 * attention;
    floats += kept;
    widest = std::max(widest, all - kept);
  }
  return kBytesOfFloat * (floats + widest);
}

double model_bytes(const ModelConfig& config) { return kBytesOfFloat * static_cast<double>(count_parameters(config)); }

ModelWork reading_work(const ModelConfig& config, int64_t seq_len, double tokens) {
  return {.config = config,
          .parameters = static_cast<double>(count_parameters(config)),
          .seq_len = seq_len,
          .read_tokens = tokens};
}

void add_training(StageCost& cost, const TrainingOptions& training, const ModelConfig& config) {
  cost.parameters = count_parameters(config);
  cost.steps = training.steps();
  cost.tokens = static_cast<double>(cost.steps) * static_cast<double>(training.batch_tokens);
  cost.flops = cost.tokens * training_flops_per_token(config, training.seq_len);
  const double micro_tokens = static_cast<double>(training.micro_rows() * training.seq_len);
  cost.memory_bytes =
      4 * model_bytes(config) +  // master, gradient, two slots
      micro_tokens * activation_bytes_per_token(config, find_recompute(training.recompute).value_or(Recompute::none));
  cost.disk_bytes = model_bytes(config) * (1 + 3 * (1.0 + training.keep_last));  // model, and checkpoints while it runs
  cost.transient_bytes = training.keep_finished ? 0 : cost.disk_bytes - model_bytes(config);
  cost.memory_remedy = fmt::format("{}.micro_batch_tokens or the model's size", cost.name);
  ModelWork work = reading_work(config, training.seq_len, 0);
  work.steps = cost.steps;
  work.rows = training.rows();
  work.micro_rows = training.micro_rows();
  work.recompute = find_recompute(training.recompute);
  if (training.master != "auto") work.split_master = training.master == "split";
  work.documents = training.document_mask;
  work.adamw = training.optimizer.optimizer == "adamw";
  cost.work.push_back(std::move(work));
}

double look_tokens(const TrainingOptions& training, const CostBasis& basis) {
  const int64_t every = training.eval_steps > 0 ? training.eval_steps : std::max<int64_t>(1, training.steps() / 10);
  return static_cast<double>(training.steps() / every + 1) *
         std::min(static_cast<double>(training.eval_tokens), basis.tokens_of(training.eval_split));
}

}  // namespace coppice
