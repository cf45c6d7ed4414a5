// The measures that an ablation's tables show, and every arm beside its reference: paired tests, corrected for their
// number.
#pragma once

#include <span>
#include <vector>

#include "recipes/report/ablation_report.h"
#include "recipes/report/paired_test.h"

namespace coppice {

struct AblationMeasure {
  const char *title, *key;
  double ReportScore::*of;
  bool share;  // shown as per cent
  bool less_is_better;
};
/// In the order of the tables: loss first, then bits a byte, accuracy and so on.
std::span<const AblationMeasure> ablation_measures();

/// A measure of the arm's compared model under each seed; absent where it is not evaluated.
std::vector<double> values_of(const ReportArm& arm, double ReportScore::*measure);

/// One arm minus another, both under the same seed.
struct ArmDifference {
  const ReportArm *arm, *reference;
  std::vector<PairedTest> tests;    // for each measure
  std::vector<double> corrected_p;  // Holm's, over all differences of the comparison by that measure
};
/// Each arm beside its reference, then beside the reference's own and so on: in the order of the arms, without those
/// that left no model.
std::vector<ArmDifference> differences_of(const Comparison& comparison);

}  // namespace coppice
