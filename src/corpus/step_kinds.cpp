#include "src/corpus/step.h"

namespace coppice {

extern const StepKind kLicencesStep, kOptOutStep;

std::span<const StepKind* const> step_kinds() {
  static const std::vector<const StepKind*> rows = {&kLicencesStep, &kOptOutStep};
  return rows;
}

}  // namespace coppice
