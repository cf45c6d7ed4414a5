#include "src/corpus/step.h"

namespace coppice {

extern const StepKind kLanguageStep, kClassifyStep, kWordsStep;

std::span<const StepKind* const> step_kinds() {
  static const std::vector<const StepKind*> rows = {&kLanguageStep, &kClassifyStep, &kWordsStep};
  return rows;
}

}  // namespace coppice
