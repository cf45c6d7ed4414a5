#include "recipes/ablation/ablation.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "recipes/folder/run_folder.h"
#include "recipes/run/lineage.h"
#include "recipes/run/recipe_warnings.h"
#include "recipes/stages/evaluate.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/base/threads.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

/// Does `work`; what it refuses names the arm.
template <class Work>
auto for_arm(const std::string& arm, const Work& work) {
  try {
    return work();
  } catch (const UserError& error) {
    throw UserError(error.code(), fmt::format("arm '{}': {}", arm, error.what()));
  }
}

Recipe load_arm(const std::string& file, std::vector<Override> overrides, const std::vector<std::string>& unset,
                const Recipe& base, const ArmOptions& arm, uint64_t seed) {
  overrides.push_back({.path = "seed", .value = std::to_string(seed), .where = arm.where});
  return for_arm(arm.name, [&] { return load_recipe(file, overrides, unset, base.sources, &arm); });
}

}  // namespace

Ablation load_ablation(const std::string& file, const std::vector<Override>& overrides,
                       const std::vector<std::string>& unset, std::shared_ptr<Sources> sources) {
  Ablation ablation{.base = load_recipe(file, overrides, unset, std::move(sources))};
  const Recipe& base = ablation.base;
  if (base.arms.empty())
    throw UserError::recipe(
        file, fmt::format("the recipe has no [[arm]], so there is nothing to compare; coppice run {} runs it as it is",
                          file));
  ablation.reference = base.reference.empty() ? base.arms.front().name : base.reference;
  ablation.seeds = base.seeds.empty() ? std::vector<uint64_t>{base.seed} : base.seeds;
  ablation.compare = base.compare;
  if (ablation.compare.empty())
    for (const Stage& stage : base.stages)
      if (const auto* evaluate = stage.find<EvaluateStage>()) ablation.compare = {evaluate->of.back()};
  if (ablation.compare.empty())
    throw UserError::recipe(file, "no evaluate stage: an ablation compares the models that are evaluated");
  for (const ArmOptions& arm : base.arms)
    for (const uint64_t seed : ablation.seeds)
      ablation.runs.push_back({.arm = arm.name,
                               .reference = arm.reference.empty() ? ablation.reference : arm.reference,
                               .seed = seed,
                               .recipe = load_arm(file, overrides, unset, base, arm, seed),
                               .stages = {}});
  return ablation;
}

void check_before_work(const Ablation& ablation, Missing missing, const Tokenizer* trained) {
  for (const ArmRun& run : ablation.runs)
    if (run.seed == ablation.seeds.front())
      for_arm(run.arm, [&] { check_before_work(run.recipe, missing, {}, trained); });  // no check asks for the seed
}

std::vector<std::string> ablation_warnings(const Ablation& ablation) {
  std::vector<std::string> lines;
  for (const ArmRun& run : ablation.runs) {
    if (run.seed != ablation.seeds.front()) continue;
    std::ranges::copy(recipe_warnings(run.recipe), std::back_inserter(lines));
    const std::vector<Stage>& stages = run.recipe.stages;
    std::vector<char> used(stages.size(), 0);
    for (size_t i = stages.size(); i-- > 0;) {
      if (stages[i].kind == "evaluate" || stages[i].kind == "export") used[i] = 1;
      if (!used[i]) continue;
      for (const std::string& input : stages[i].inputs())
        for (size_t j = 0; j < i; ++j) used[j] |= stages[j].name == input;
    }
    for (size_t i = 0; i < stages.size(); ++i)
      if (!used[i])
        lines.push_back(
            fmt::format("arm '{}': nothing that is evaluated needs stage '{}'; drop = [\"{}\"] saves its time", run.arm,
                        stages[i].name, stages[i].name));
  }
  return lines;
}

AblationPlan plan_ablation(Ablation& ablation, const std::string& data_fingerprint, double gemm_gflops) {
  AblationPlan plan;
  std::map<std::string, size_t> place;  // by fingerprint
  const CorpusBytes text_bytes = corpus_bytes(ablation.base);
  for (size_t r = 0; r < ablation.runs.size(); ++r) {
    ArmRun& run = ablation.runs[r];
    run.stages.clear();
    const RecipeCost cost = estimate_cost(run.recipe, text_bytes, gemm_gflops);
    plan.data = cost.stages.front();
    std::map<std::string, std::string> fingerprints;  // by stage name
    for (size_t s = 0; s < run.recipe.stages.size(); ++s) {
      const Stage& stage = run.recipe.stages[s];
      Json identity = stage_identity(run.recipe, stage, fingerprints, data_fingerprint);
      const std::string of_stage = fingerprints[stage.name] = fingerprint(identity);
      const auto [found, is_new] = place.emplace(of_stage, plan.stages.size());
      if (is_new) {
        DistinctStage distinct{
            .fingerprint = of_stage, .identity = std::move(identity), .run = r, .stage = s, .cost = cost.stages[s + 1]};
        for (const std::string& input : stage.inputs()) distinct.inputs.push_back(place.at(fingerprints.at(input)));
        plan.stages.push_back(std::move(distinct));
      }
      ++plan.stages[found->second].num_users;
      run.stages.push_back(found->second);
    }
  }
  return plan;
}

RecipeCost ablation_cost(const AblationPlan& plan, int jobs) {
  RecipeCost total;
  total.stages = {plan.data};
  std::vector<double> memory, transient;
  for (const DistinctStage& stage : plan.stages) {
    total.stages.push_back(stage.cost);
    memory.push_back(stage.cost.memory_bytes);
    transient.push_back(stage.cost.transient_bytes);
    total.disk_bytes += stage.cost.disk_bytes - stage.cost.transient_bytes;
  }
  const auto largest = [&](std::vector<double>& values) {
    std::ranges::sort(values, std::greater<>());
    double sum = 0;
    for (size_t i = 0; i < std::min(values.size(), static_cast<size_t>(jobs)); ++i) sum += values[i];
    return sum;
  };
  total.memory_bytes = std::max(plan.data.memory_bytes, largest(memory));
  total.disk_bytes += plan.data.disk_bytes + largest(transient);
  return total;
}

std::string ablation_cost_table(const Ablation& ablation, const AblationPlan& plan, int jobs) {
  struct Row {
    std::string kind;
    int64_t distinct = 0, users = 0;
    double tokens = 0, flops = 0, seconds = 0;
  };
  std::vector<std::string> order = {"data"};
  std::map<std::string, Row> rows;
  const auto add = [&](const std::string& name, const StageCost& cost, size_t num_users) {
    if (std::ranges::find(order, name) == order.end()) order.push_back(name);
    Row& row = rows[name];
    row.kind = cost.kind;
    ++row.distinct;
    row.users += static_cast<int64_t>(num_users);
    row.tokens += cost.tokens;
    row.flops += cost.flops;
    row.seconds += cost.seconds;
  };
  add("data", plan.data, ablation.runs.size());
  for (const DistinctStage& stage : plan.stages) add(stage.cost.name, stage.cost, stage.num_users);

  std::string text = fmt::format(
      "{}: {} arms x {} seeds, {} stages of which {} are distinct, {} at a time\n\n{:<14} {:<12} {:>9} {:>9} {:>9} "
      "{:>10} {:>8}\n",
      ablation.base.name, ablation.base.arms.size(), ablation.seeds.size(),
      [&] {
        size_t n = 0;
        for (const ArmRun& run : ablation.runs) n += run.stages.size();
        return n;
      }(),
      plan.stages.size(), jobs, "stage", "kind", "stands for", "computed", "tokens", "FLOPs", "time");
  Row total;
  for (const std::string& name : order) {
    const Row& row = rows[name];
    const auto shown = [](bool known, const std::string& value) { return known ? value : std::string("-"); };
    text += fmt::format("{:<14} {:<12} {:>9} {:>9} {:>9} {:>10} {:>8}\n", name, row.kind, row.users, row.distinct,
                        shown(row.tokens > 0, format_count(row.tokens)),
                        shown(row.flops > 0, fmt::format("{:.2e}", row.flops)),
                        shown(row.seconds > 0, format_duration(row.seconds)));
    if (row.kind == "train" || row.kind == "learn_masks") total.tokens += row.tokens;
    total.flops += row.flops;
    total.seconds += row.seconds;
  }
  const RecipeCost cost = ablation_cost(plan, jobs);
  text += fmt::format("\ntotal: {} tokens trained on, {:.2e} FLOPs, {} of memory at most, {} of disk{}\n",
                      format_count(total.tokens), total.flops, format_bytes(cost.memory_bytes),
                      format_bytes(cost.disk_bytes),
                      total.seconds > 0 ? fmt::format(", about {}", format_duration(total.seconds / jobs)) : "");
  text += split_line(estimate_tokens(ablation.base));
  for (const std::string& name : ablation.compare) {
    text += fmt::format("\n{:<20} {:>11} {:>9} {:>18}\n", fmt::format("arm ({})", name), "parameters", "tokens",
                        "tokens a parameter");
    for (const ArmRun& run : ablation.runs) {
      if (run.seed != ablation.seeds.front() ||
          std::ranges::find(run.recipe.stages, name, &Stage::name) == run.recipe.stages.end())
        continue;
      const auto parameters = static_cast<double>(count_parameters(run.recipe.model_after(name)));
      const double tokens = lineage_of(run.recipe, name).training_tokens;
      text += fmt::format("{:<20} {:>11} {:>9} {:>18.2f}\n", run.arm, format_count(parameters), format_count(tokens),
                          tokens / parameters);
    }
  }
  return text;
}

Parallelism parallelism_of(const Recipe& recipe, int jobs) {
  const int asked = asked_threads(recipe.threads), processors = find_processors().usable();
  if (jobs == 0) jobs = asked == 0 ? 1 : std::max(1, processors / asked);
  return {.jobs = jobs, .threads = asked > 0 ? asked : std::max(1, processors / jobs)};
}

}  // namespace coppice
