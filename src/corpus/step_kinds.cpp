#include "src/corpus/step.h"

namespace coppice {

extern const StepKind kQualityStep;  // steps/quality.cpp

std::span<const StepKind* const> step_kinds() {
  static const std::vector<const StepKind*> rows = {&kQualityStep};
  return rows;
}

}  // namespace coppice
