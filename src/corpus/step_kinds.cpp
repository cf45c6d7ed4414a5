#include "src/corpus/step.h"

namespace coppice {

extern const StepKind kExtractStep, kLicencesStep, kOptOutStep, kLanguageStep, kQualityStep, kCodeStep, kMathsStep,
    kQaStep, kWordsStep, kClassifyStep, kPiiStep, kDedupStep, kParagraphsStep, kDecontaminateStep;

std::span<const StepKind* const> step_kinds() {
  static const std::vector<const StepKind*> rows = {&kExtractStep,    &kLicencesStep,     &kOptOutStep, &kLanguageStep,
                                                    &kQualityStep,    &kCodeStep,         &kMathsStep,  &kQaStep,
                                                    &kWordsStep,      &kClassifyStep,     &kPiiStep,    &kDedupStep,
                                                    &kParagraphsStep, &kDecontaminateStep};
  return rows;
}

}  // namespace coppice
