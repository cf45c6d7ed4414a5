#include <fmt/format.h>

#include <memory>

#include "recipes/ablation/ablation.h"
#include "recipes/commands/verbs.h"
#include "recipes/language/sources.h"
#include "recipes/run/before_work.h"
#include "recipes/run/recipe_warnings.h"

namespace coppice {
namespace {

void print_config(const RunRequest& request) {
  const Recipe recipe =
      load_recipe(request.recipe_file, request.overrides, request.unset, std::make_shared<Sources>(request.out));
  std::vector<std::string> lines;
  if (recipe.arms.empty()) {
    check_before_work(recipe, Missing::allowed);
    lines = recipe_warnings(recipe);
  } else {
    const Ablation ablation = load_ablation(request.recipe_file, request.overrides, request.unset, recipe.sources);
    check_before_work(ablation, Missing::allowed);
    lines = ablation_warnings(ablation);
  }
  say_what_is_gone(recipe);
  fmt::print("{}", recipe.with_origins);
  flush_result();
  log_warnings(lines);
}

}  // namespace

void add_config(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<RecipeFlags>();
  CLI::App* config = add_verb(app, "config", "the resolved recipe, each value with its origin",
                              "coppice config recipes/demo.toml --set seed=2");
  flags->add(*config);
  flags->add_out(*config, "run folder, whose record holds for what is gone; default runs/<recipe name>");
  config->callback([flags, &action] { action = [flags] { print_config(flags->parsed()); }; });
}

}  // namespace coppice
