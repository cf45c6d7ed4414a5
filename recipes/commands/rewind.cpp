#include <memory>

#include "recipes/commands/verbs.h"
#include "recipes/folder/midway.h"

namespace coppice {
namespace {

struct Flags {
  std::string stage;
  int64_t step = 0;
};

}  // namespace

void add_rewind(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* rewind =
      add_verb(app, "rewind", "take a stage under way back to one of its checkpoints; later ones are set aside",
               "coppice rewind runs/demo/core --step 100");
  rewind->add_option("stage", flags->stage, "stage folder of a run, for instance runs/demo/core")->required();
  rewind->add_option("--step", flags->step, "of a checkpoint in its ckpt/")
      ->required()
      ->check(CLI::Range(int64_t{0}, int64_t{99'999'999}));
  rewind->callback([flags, &action] { action = [flags] { rewind_stage(flags->stage, flags->step); }; });
}

}  // namespace coppice
