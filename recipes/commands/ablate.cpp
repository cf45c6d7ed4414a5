#include <memory>

#include "recipes/ablation/run_ablation.h"
#include "recipes/commands/verbs.h"

namespace coppice {
namespace {

struct Flags : RecipeFlags {
  int jobs = 0;
};

}  // namespace

void add_ablate(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* ablate = add_verb(app, "ablate",
                              "run every [[arm]] of a recipe under all its seeds; what arms share is computed once; "
                              "the same command again resumes",
                              "coppice ablate recipes/prune_x_distil.toml --jobs 2");
  flags->add(*ablate);
  flags->add_out(*ablate);
  ablate->add_option("--jobs", flags->jobs, "stages at a time; default processors / threads of the recipe")
      ->check(CLI::Range(0, 1024));
  ablate->add_flag("--rerun", flags->request.rerun, "move stages made with other options aside and run them again");
  ablate->add_flag("--fresh", flags->request.fresh, "refuse a folder that already holds a run");
  ablate->callback([flags, &action] { action = [flags] { run_ablation(flags->parsed(), flags->jobs); }; });
}

}  // namespace coppice
