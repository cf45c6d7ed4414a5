// What can be refused before the first stage: each kind's own check (a column of the table of stages), asked of every
// stage by config, plan, run and ablate. Not here: what the recipe alone says (load_recipe), and what only the token
// shards tell (check_windows). `report` and `inspect` ask nothing of this, so that a finished run is read when its
// inputs are gone. What a stage is to compute on is asked apart from it, by what computes: config and plan may come on
// another machine.
#pragma once

#include <string>
#include <vector>

#include "recipes/stages/context.h"

namespace coppice {

/// The tokenizer that the recipe names, with as many pieces as it says; nullptr when one will be trained, or was and is
/// gone.
const Tokenizer* given_tokenizer(const Recipe& recipe, Missing missing);
/// Refuses what a later stage would refuse, as far as the recipe and the files it names tell. `done`: stages that will
/// not run again, and so need nothing. `trained`: the tokenizer, once the data stage has made it. UserError naming the
/// stage, and file or line.
void check_before_work(const Recipe& recipe, Missing missing, const std::vector<std::string>& done = {},
                       const Tokenizer* trained = nullptr);

/// Refuses a stage that this machine cannot compute as its keys ask: DeviceError::unavailable in one line that says
/// what is missing and what to do. Asks the CUDA driver where the stage names a device, so not in a process that forks
/// others which compute.
void check_placement(const Stage& stage);
/// The same of all stages but those that are `done`.
void check_placements(const Recipe& recipe, const std::vector<std::string>& done);

}  // namespace coppice
