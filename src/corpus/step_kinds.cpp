#include "src/corpus/step.h"

namespace coppice {

extern const StepKind kDedupStep, kParagraphsStep;

std::span<const StepKind* const> step_kinds() {
  static const std::vector<const StepKind*> rows = {&kDedupStep, &kParagraphsStep};
  return rows;
}

}  // namespace coppice
