#include "recipes/language/training_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "recipes/language/recipe.h"
#include "recipes/language/recipe_reading.h"
#include "src/model/recompute.h"

namespace coppice {
namespace {

constexpr int64_t kMaxTokens = 1'000'000'000'000'000;  // sums of a few stay inside 64 bits

/// [[stage.mixture]], or the weights of [[data.domain]].
std::vector<MixtureEntry> read_mixture(OptionTable& table, const std::vector<DomainOptions>& domains) {
  std::vector<MixtureEntry> mixture;
  std::vector<std::string> given;
  for (OptionTable row : table.tables("mixture")) {
    MixtureEntry entry;
    row.take("domain", entry.domain, "name of a [[data.domain]]");
    row.take("weight", entry.weight, "share, relative to the others");
    row.take("max_epochs", entry.max_epochs, "0 = no limit");
    row.finish();
    std::vector<std::string> names;
    for (const DomainOptions& domain : domains) names.push_back(domain.name);
    check_choice(entry.domain, names, row.where("domain"), "domain");
    check(entry.weight >= 0 && std::isfinite(entry.weight), row.where("weight"),
          fmt::format("weight: got {}, expected 0 or more", entry.weight));
    check(entry.max_epochs >= 0 && std::isfinite(entry.max_epochs), row.where("max_epochs"),
          fmt::format("max_epochs: got {}, expected 0 (no limit) or more", entry.max_epochs));
    check(std::ranges::find(given, entry.domain) == given.end(), row.where("domain"),
          fmt::format("domain: '{}' is given twice", entry.domain));
    given.push_back(entry.domain);
    if (entry.weight > 0) mixture.push_back(entry);
  }
  if (mixture.empty())
    for (const DomainOptions& domain : domains)
      if (domain.weight > 0) mixture.push_back({domain.name, domain.weight, domain.max_epochs});
  check(!mixture.empty(), table.where(), "the mixture has no domain with a weight above 0");
  return mixture;
}

/// The sizes of a step and of the whole.
void check_sizes(const TrainingOptions& training, const OptionTable& table) {
  const auto require = [&](bool holds, const char* key, const auto& got, const std::string& expected) {
    check(holds, table.where(key), fmt::format("{}: got {}, expected {}", key, got, expected));
  };
  const int64_t seq_len = training.seq_len, batch = training.batch_tokens, micro = training.micro_batch_tokens;
  require(training.tokens > 0 && training.tokens <= kMaxTokens, "tokens", training.tokens,
          fmt::format("1 to {}", kMaxTokens));
  require(seq_len >= 2, "seq_len", seq_len, "at least 2");
  require(batch > 0 && batch <= kMaxTokens && batch % seq_len == 0, "batch_tokens", batch,
          fmt::format("a positive multiple of seq_len = {}", seq_len));
  check(training.steps() < 100'000'000, table.where("batch_tokens"),
        fmt::format(
            "batch_tokens: got {}, so {} steps, expected below 10^8 (checkpoints have step numbers of eight digits)",
            batch, training.steps()));
  require(micro >= 0 && micro % seq_len == 0, "micro_batch_tokens", micro,
          fmt::format("0 or a multiple of seq_len = {}", seq_len));
}

void check_cadences(const TrainingOptions& training, const OptionTable& table) {
  const auto require = [&](bool holds, const char* key, const auto& got, const char* expected) {
    check(holds, table.where(key), fmt::format("{}: got {}, expected {}", key, got, expected));
  };
  check(training.eval_steps >= 0 && training.eval_tokens >= 0, table.where("eval_steps"),
        "eval_steps and eval_tokens: expected 0 or more");
  require(training.checkpoint_steps >= 1, "checkpoint_steps", training.checkpoint_steps, "at least 1");
  require(training.keep_last >= 2, "keep_last", training.keep_last, "at least 2: the newest may be damaged");
}

}  // namespace

int64_t TrainingOptions::steps() const { return std::max<int64_t>(1, (tokens + batch_tokens / 2) / batch_tokens); }

void prepare_training(OptionTable& table, TrainingOptions& training) {
  table.call_count("tokens");
  if (table.text_of("optimizer") != "adamw") return;
  training.optimizer.beta_1 = 0.9;
  training.optimizer.weight_decay = 1e-4;
  training.optimizer.final_lr_ratio = 1e-4;
}

void check_split(const std::string& split, const DataOptions& data, const std::string& where, const std::string& key) {
  check_choice(split, {"heldout", "tuning"}, where, key);
  check(split != "tuning" || data.tuning_share > 0, where,
        fmt::format("{}: \"tuning\" needs documents set aside for it; give data.tuning_share", key));
}

void finish_training(OptionTable& table, TrainingOptions& training, const DataOptions& data, uint64_t seed) {
  training.data_seed = training.data_seed == 0 ? seed : training.data_seed + ((seed - 1) << 32);
  check_sizes(training, table);
  check_cadences(training, table);
  check_split(training.eval_split, data, table.where("eval_split"), "eval_split");
  check_optimizer_options(training.optimizer, [&](const char* key) { return table.where(key); });
  check(training.z_loss >= 0 && std::isfinite(training.z_loss), table.where("z_loss"),
        fmt::format("z_loss: got {}, expected 0 or more", training.z_loss));
  std::vector<std::string> policies = recompute_names();
  policies.insert(policies.begin(), "auto");
  check_choice(training.recompute, policies, table.where("recompute"), "recompute");
  check_choice(training.master, {"auto", "fp32", "split"}, table.where("master"), "master");
  check(training.max_skipped_steps >= 0, table.where("max_skipped_steps"),
        fmt::format("max_skipped_steps: got {}, expected 0 or more", training.max_skipped_steps));
  training.mixture = read_mixture(table, data.domains);
}

Json drawing_json(const TrainingOptions& training) {
  Json json = {{"tokens", training.tokens},
               {"batch_tokens", training.batch_tokens},
               {"seq_len", training.seq_len},
               {"document_mask", training.document_mask},
               {"data_seed", training.data_seed}};
  for (const MixtureEntry& entry : training.mixture)
    json["mixture"].push_back({{"domain", entry.domain}, {"weight", entry.weight}, {"max_epochs", entry.max_epochs}});
  return json;
}

}  // namespace coppice
