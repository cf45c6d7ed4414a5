#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>

#include "recipes/ablation/ablation.h"
#include "recipes/commands/verbs.h"
#include "recipes/folder/machine.h"
#include "recipes/language/sources.h"
#include "recipes/run/before_work.h"
#include "recipes/run/cost.h"
#include "recipes/run/recipe_warnings.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

struct Flags : RecipeFlags {
  int jobs = 0;
};

void plan_arms(const RunRequest& request, const Recipe& recipe, int jobs) {
  Ablation ablation = load_ablation(request.recipe_file, request.overrides, request.unset, recipe.sources);
  check_before_work(ablation, Missing::allowed);
  const Parallelism parallel = parallelism_of(recipe, jobs);
  start_torch(parallel.threads);
  say_what_is_gone(recipe);
  const AblationPlan planned = plan_ablation(ablation, "", gemm_gflops());
  std::vector<std::string> lines = ablation_warnings(ablation);
  for (const ArmRun& run : ablation.runs)
    std::ranges::copy(corpus_warnings(run.recipe, estimate_tokens(recipe)), std::back_inserter(lines));
  fmt::print("{}{}", ablation_cost_table(ablation, planned, parallel.jobs), warnings_text(lines));
  flush_result();
  check_fits(ablation_cost(planned, parallel.jobs), run_root(request, recipe));
}

void plan_stages(const RunRequest& request, const Recipe& recipe) {
  check_before_work(recipe, Missing::allowed);
  start_torch(recipe.threads);
  const RecipeCost cost = estimate_cost(recipe, corpus_bytes(recipe), gemm_gflops());
  say_what_is_gone(recipe);
  std::vector<std::string> lines = recipe_warnings(recipe);
  std::ranges::copy(corpus_warnings(recipe, estimate_tokens(recipe)), std::back_inserter(lines));
  fmt::print("{}{}", cost_table(recipe, cost), warnings_text(lines));
  flush_result();
  check_fits(cost, run_root(request, recipe));
}

void plan(const RunRequest& request, int jobs) {
  const Recipe recipe =
      load_recipe(request.recipe_file, request.overrides, request.unset, std::make_shared<Sources>(request.out));
  if (recipe.arms.empty())
    plan_stages(request, recipe);
  else
    plan_arms(request, recipe, jobs);
}

}  // namespace

void add_plan(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* verb =
      add_verb(app, "plan", "parameters, tokens, FLOPs, memory, disk and time of each stage; starts nothing",
               "coppice plan recipes/demo.toml");
  flags->add(*verb);
  flags->add_out(*verb, "run folder whose disk is checked");
  verb->add_option("--jobs", flags->jobs, "of an ablation: stages at a time")->check(CLI::Range(0, 1024));
  verb->callback([flags, &action] { action = [flags] { plan(flags->parsed(), flags->jobs); }; });
}

}  // namespace coppice
