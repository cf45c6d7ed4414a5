#include "recipes/run/run_recipe.h"

#include <memory>

#include "recipes/commands/verbs.h"

namespace coppice {

void add_run(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<RecipeFlags>();
  CLI::App* run =
      add_verb(app, "run", "run a recipe: all stages; the same command again resumes, or says that it is complete",
               "coppice run recipes/demo.toml --set core.tokens=2e5");
  flags->add(*run);
  flags->add_out(*run);
  run->add_flag("--rerun", flags->request.rerun, "move stages made with other options aside and run them again");
  run->add_flag("--fresh", flags->request.fresh, "refuse a folder that already holds a run");
  run->add_option("--allow-change", flags->request.allow_change,
                  "<stage>.<key> that the recipe now has otherwise: the stage under way goes on from its checkpoint, "
                  "and the change is recorded; may be repeated")
      ->take_all()
      ->allow_extra_args(false)
      ->excludes("--rerun");
  run->callback([flags, &action] { action = [flags] { run_recipe(flags->parsed()); }; });
}

}  // namespace coppice
