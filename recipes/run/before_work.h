// What can be refused before the first stage: each kind's own check (a column of the table of stages), asked of every
// stage by config, plan, run and ablate. Not here: what the recipe alone says (load_recipe), and what only the token
// shards tell (check_windows). `report` and `inspect` ask nothing of this, so that a finished run is read when its
// inputs are gone.
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

}  // namespace coppice
