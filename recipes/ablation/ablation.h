// An ablation as data: every arm under every seed as a recipe of its own, and the distinct stages among them. Two
// stages with one fingerprint are one piece of work: it is done once, by the first arm and seed that has it, and the
// others' folders say `same_as`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "recipes/language/recipe.h"
#include "recipes/run/before_work.h"
#include "recipes/run/cost.h"
#include "src/base/json.h"

namespace coppice {

/// One arm under one seed.
struct ArmRun {
  std::string arm, reference;  // the arm it is compared with; itself: with none
  uint64_t seed = 1;
  Recipe recipe;
  std::vector<size_t> stages;  // for each stage of the recipe, its place in AblationPlan::stages

  std::string folder() const { return arm + "/seed-" + std::to_string(seed); }  // relative to the run
};

struct Ablation {
  Recipe base;  // the file itself: data, shared options, arms
  std::string reference;
  std::vector<std::string> compare;  // stages whose models the tables compare
  std::vector<uint64_t> seeds;
  std::vector<ArmRun> runs;  // arms in the order of the file, each under all seeds
};

/// One piece of work, done by the stage of one arm and seed for all that have the same fingerprint.
struct DistinctStage {
  std::string fingerprint;
  Json identity;
  size_t run = 0, stage = 0;   // whose options say what to do; runs[run].recipe.stages[stage]
  std::vector<size_t> inputs;  // earlier places in AblationPlan::stages
  size_t num_users = 0;        // stages of all arms and seeds that it stands for
  StageCost cost;
};

struct AblationPlan {
  std::vector<DistinctStage> stages;  // inputs first
  StageCost data;
};

/// Reads an ablation: the file once as it stands and once for each arm and seed. UserError::recipe with file:line,
/// naming the arm, for what cannot be; also when the file has no arms.
Ablation load_ablation(const std::string& file, const std::vector<Override>& overrides,
                       const std::vector<std::string>& unset, std::shared_ptr<Sources> sources = nullptr);

/// check_before_work() of every arm: what only its own options or files make impossible.
void check_before_work(const Ablation& ablation, Missing missing, const Tokenizer* trained = nullptr);

/// recipe_warnings of every arm, and its stages that lead to no evaluation: work without an effect on the tables.
std::vector<std::string> ablation_warnings(const Ablation& ablation);

/// The distinct stages, and for each run which of them it needs (runs[].stages). `gemm_gflops` 0 = no time estimate.
AblationPlan plan_ablation(Ablation& ablation, const std::string& data_fingerprint, double gemm_gflops);

/// Memory of `jobs` stages at once, disk of everything kept and of the checkpoints of `jobs` stages: what check_fits()
/// asks for.
RecipeCost ablation_cost(const AblationPlan& plan, int jobs);
/// What `coppice plan` prints for an ablation.
std::string ablation_cost_table(const Ablation& ablation, const AblationPlan& plan, int jobs);

/// CPU threads of one stage, and how many stages run at once: `jobs` 0 = as many as fit into the processors with the
/// recipe's threads.
struct Parallelism {
  int jobs = 1, threads = 1;
};
Parallelism parallelism_of(const Recipe& recipe, int jobs);

}  // namespace coppice
