#include "recipes/stages/stages.h"

namespace coppice {

std::span<const StageKind* const> stage_kinds() {
  static constexpr const StageKind* kRows[] = {&kTrain, &kImport, &kLearnMasks, &kPrune, &kLabel, &kEvaluate, &kExport};
  return kRows;
}

}  // namespace coppice
