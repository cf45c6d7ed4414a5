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
#include "recipes/run/device_plan.h"
#include "recipes/run/recipe_warnings.h"
#include "src/base/log.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

struct Flags : RecipeFlags {
  int jobs = 0;
  std::string device = "cpu";
};

std::vector<std::string> device_names() {
  std::vector<std::string> names = {"cpu"};
  for (const DeviceRow& row : device_rows()) names.emplace_back(row.name);
  return names;
}

/// What a recipe takes on a device that need not be there. Refuses what does not fit.
void print_on_device(const Recipe& recipe, const RecipeCost& cost, const DeviceRow& device,
                     const std::vector<std::string>& warnings) {
  const DevicePlan planned = plan_device(cost.stages, device);
  fmt::print("{}disk: {}\n{}", device_table(recipe.name, planned), format_bytes(cost.disk_bytes),
             warnings_text(warnings));
  flush_result();
  check_fits(planned);
}

/// `device`: nullptr for this machine's processor.
void plan_arms(const RunRequest& request, const Recipe& recipe, int jobs, const DeviceRow* device) {
  Ablation ablation = load_ablation(request.recipe_file, request.overrides, request.unset, recipe.sources);
  check_before_work(ablation, Missing::allowed);
  const Parallelism parallel = parallelism_of(recipe, jobs);
  start_torch(parallel.threads);
  say_what_is_gone(recipe);
  const AblationPlan planned = plan_ablation(ablation, "", device == nullptr ? gemm_gflops() : 0);
  std::vector<std::string> lines = ablation_warnings(ablation);
  for (const ArmRun& run : ablation.runs)
    std::ranges::copy(corpus_warnings(run.recipe, estimate_tokens(recipe)), std::back_inserter(lines));
  const RecipeCost cost = ablation_cost(planned, parallel.jobs);
  if (device != nullptr) return print_on_device(recipe, cost, *device, lines);
  fmt::print("{}{}", ablation_cost_table(ablation, planned, parallel.jobs), warnings_text(lines));
  flush_result();
  check_fits(cost, run_root(request, recipe));
}

void plan_stages(const RunRequest& request, const Recipe& recipe, const DeviceRow* device) {
  check_before_work(recipe, Missing::allowed);
  start_torch(recipe.threads);
  const RecipeCost cost = estimate_cost(recipe, corpus_bytes(recipe), device == nullptr ? gemm_gflops() : 0);
  say_what_is_gone(recipe);
  std::vector<std::string> lines = recipe_warnings(recipe);
  std::ranges::copy(corpus_warnings(recipe, estimate_tokens(recipe)), std::back_inserter(lines));
  if (device != nullptr) return print_on_device(recipe, cost, *device, lines);
  fmt::print("{}{}", cost_table(recipe, cost), warnings_text(lines));
  flush_result();
  check_fits(cost, run_root(request, recipe));
}

void plan(const RunRequest& request, int jobs, const DeviceRow* device) {
  const Recipe recipe =
      load_recipe(request.recipe_file, request.overrides, request.unset, std::make_shared<Sources>(request.out));
  if (recipe.arms.empty())
    plan_stages(request, recipe, device);
  else
    plan_arms(request, recipe, jobs, device);
}

}  // namespace

void add_plan(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* verb =
      add_verb(app, "plan", "parameters, tokens, FLOPs, memory, disk and time of each stage; starts nothing",
               "coppice plan recipes/demo.toml\n  coppice plan recipes/afm.toml --device h200");
  flags->add(*verb);
  flags->add_out(*verb, "run folder whose disk is checked");
  verb->add_option("--jobs", flags->jobs, "of an ablation: stages at a time")->check(CLI::Range(0, 1024));
  verb->add_option("--device", flags->device,
                   "instead of this machine: a GPU that need not be there; its memory by kind, micro-batch, what is "
                   "computed again and time, all of them predictions")
      ->check(CLI::IsMember(device_names()));
  verb->callback(
      [flags, &action] { action = [flags] { plan(flags->parsed(), flags->jobs, find_device_row(flags->device)); }; });
}

}  // namespace coppice
