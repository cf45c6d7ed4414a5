// A model cut along one axis or one after another, as other programs meet it: fewer groups of heads than hidden size /
// heads would make, fewer layers, a narrower residual stream with the eps that goes with it.
#pragma once

#include "pruning/plan.h"
#include "pruning/scores.h"

namespace coppice {

/// Half of each row's units stay, by magnitude.
inline Model cut_along(Model model, const std::vector<std::string>& axes) {
  for (const std::string& name : axes) {
    const CutAxis axis = *find_axis(name);
    const std::vector<int64_t> units = units_of(model.config, axis);
    std::vector<int64_t> kept;
    for (const int64_t count : units) kept.push_back((count + 1) / 2);
    const at::Tensor scores_RU = find_score("magnitude", "").compute({.model = &model, .pad = true, .axis = axis});
    model = prune_model(model, make_plan(scores_RU, kept, "magnitude", "", units, axis));
  }
  return model;
}

}  // namespace coppice
