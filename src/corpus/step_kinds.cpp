#include "src/corpus/step.h"

namespace coppice {

extern const StepKind kPiiStep, kDecontaminateStep;

std::span<const StepKind* const> step_kinds() {
  static const std::vector<const StepKind*> rows = {&kPiiStep, &kDecontaminateStep};
  return rows;
}

}  // namespace coppice
