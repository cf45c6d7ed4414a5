#include "src/corpus/step.h"

namespace coppice {

extern const StepKind kExtractStep;

std::span<const StepKind* const> step_kinds() {
  static const std::vector<const StepKind*> rows = {&kExtractStep};
  return rows;
}

}  // namespace coppice
