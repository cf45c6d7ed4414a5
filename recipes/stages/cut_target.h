// What a cut asks of the [model.<target>] that it keeps the sizes of, and the shape that it leaves; for prune and
// learn_masks.
#pragma once

#include <string>

#include "pruning/cut_axis.h"
#include "recipes/language/stage.h"

namespace coppice {

/// The axis of an option that was checked as it was read.
CutAxis axis_of(const std::string& name);
/// `target` has less of that axis than what stage `from` leaves, or as much, and otherwise differs from it in nothing
/// but axes that later stages, going on from `stage`, cut to the same target: UserError::recipe.
void check_target(const Recipe& recipe, const Stage& stage, const std::string& from, const std::string& target,
                  CutAxis axis);
/// What stage `from` leaves, cut to the target's sizes of that axis.
ModelConfig shape_after_cut(const Recipe& recipe, const std::string& from, const std::string& target, CutAxis axis);
/// Puts what decides of axis and target into an identity, in place of the option `axis`: a cut of FFN channels has no
/// key "axis", so that identities of before the option hold.
void identify_cut(const Recipe& recipe, const std::string& target, CutAxis axis, Json& identity);

}  // namespace coppice
