// The table of stage kinds: a row each, in the file of its kind.
#pragma once

#include "recipes/language/stage.h"

namespace coppice {

extern const StageKind kTrain, kImport, kLearnMasks, kPrune, kLabel, kEvaluate, kExport;

}  // namespace coppice
