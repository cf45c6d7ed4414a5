#include "src/corpus/step.h"

namespace coppice {

extern const StepKind kCodeStep;

std::span<const StepKind* const> step_kinds() {
  static const std::vector<const StepKind*> rows = {&kCodeStep};
  return rows;
}

}  // namespace coppice
