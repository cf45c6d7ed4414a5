// Runs an ablation: data once, then every distinct stage once, in the order of their inputs and several at a time, each
// in a process of its own.
#pragma once

#include "recipes/run/run_recipe.h"

namespace coppice {

/// All arms under all seeds, then the tables. Same command, same folder goes on, also after a kill; throws Stopped
/// after a signal. A diverged stage costs its own arm and seed alone: the others are finished before the error is
/// thrown. `jobs` 0 = as many as the processors hold.
void run_ablation(const RunRequest& request, int jobs);

}  // namespace coppice
