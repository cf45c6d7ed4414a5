#include "recipes/report/ablation_differences.h"

#include <algorithm>

namespace coppice {
namespace {

constexpr AblationMeasure kMeasures[] = {
    {"loss", "loss", &ReportScore::loss, false, true},
    {"bits a byte", "bits_per_byte", &ReportScore::bits_per_byte, false, true},
    {"accuracy", "accuracy", &ReportScore::accuracy, true, false},
    {"agreement", "teacher_agreement", &ReportScore::teacher_agreement, true, false},
    {"tasks", "task_accuracy", &ReportScore::task_accuracy, true, false},
    {"loss at fitted T", "calibrated_loss", &ReportScore::calibrated_loss, false, true},
    {"ECE", "ece", &ReportScore::ece, true, true},
    {"copying", "copying_accuracy", &ReportScore::copying_accuracy, true, false}};

/// The arm's reference, that one's, and so on to an arm that has none, one that left no model, or one met before.
std::vector<const ReportArm*> references_of(const Comparison& comparison, const ReportArm& arm) {
  std::vector<const ReportArm*> chain = {&arm};
  while (!chain.back()->is_reference()) {
    const auto next = std::ranges::find(comparison.arms, chain.back()->reference, &ReportArm::name);
    if (next == comparison.arms.end() || std::ranges::find(chain, &*next) != chain.end()) break;
    chain.push_back(&*next);
  }
  chain.erase(chain.begin());
  return chain;
}

}  // namespace

std::span<const AblationMeasure> ablation_measures() { return kMeasures; }

std::vector<double> values_of(const ReportArm& arm, double ReportScore::*measure) {
  std::vector<double> values;
  for (const ReportModel& model : arm.models) values.push_back(model.score.*measure);
  return values;
}

std::vector<ArmDifference> differences_of(const Comparison& comparison) {
  std::vector<ArmDifference> differences;
  for (const ReportArm& arm : comparison.arms)
    for (const ReportArm* reference : references_of(comparison, arm)) {
      ArmDifference& difference = differences.emplace_back(ArmDifference{&arm, reference, {}, {}});
      for (const AblationMeasure& measure : kMeasures)
        difference.tests.push_back(paired_t_test(values_of(arm, measure.of), values_of(*reference, measure.of)));
    }
  for (size_t m = 0; m < std::size(kMeasures); ++m) {
    std::vector<double> family;
    for (const ArmDifference& difference : differences) family.push_back(difference.tests[m].p);
    family = holm_corrected(family);
    for (size_t i = 0; i < differences.size(); ++i) differences[i].corrected_p.push_back(family[i]);
  }
  return differences;
}

}  // namespace coppice
