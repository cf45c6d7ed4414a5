#include "src/corpus/step.h"

namespace coppice {

extern const StepKind kCodeStep;
extern const StepKind kMathsStep;
extern const StepKind kQaStep;

std::span<const StepKind* const> step_kinds() {
  static const std::vector<const StepKind*> rows = {&kCodeStep, &kMathsStep, &kQaStep};
  return rows;
}

}  // namespace coppice
