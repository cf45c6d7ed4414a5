// The result of an ablation: per arm mean and spread over seeds, differences to a reference arm with a paired test,
// what it cost; as Markdown, CSV, JSON, a drawing and a page. The struct is plain and the texts are pure functions of
// it; write_ablation_report() reads the run folder.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "recipes/report/report.h"
#include "recipes/report/report_tables.h"
#include "src/base/svg.h"

namespace coppice {

/// What one arm's model took under one seed: the stages it descends from. `own` leaves out the source, which is every
/// train stage that starts [model.source] from fresh weights; masks or another choice of channels, labels and training
/// count.
struct ArmCost {
  double tokens = kAbsent, all_tokens = kAbsent;    // trained on; forward passes (labels, calibration) are no training
  double flops = kAbsent, all_flops = kAbsent;      // of the stages' own formulas, labels among them
  double seconds = kAbsent, all_seconds = kAbsent;  // wall clock, summed over restarts
  double peak_bytes = kAbsent;                      // largest resident memory of a stage, the source's left out
};

/// One arm's compared model; one entry a seed everywhere, absent where a seed is not evaluated (yet).
struct ReportArm {
  std::string name, reference;  // the arm it is compared with; its own name: with none
  std::vector<ReportModel> models;
  std::vector<ArmCost> costs;

  bool is_reference() const { return name == reference; }
};

/// The models that one stage leaves in all arms.
struct Comparison {
  std::string stage, title;  // "pruned", "Straight after pruning: 'pruned'"
  std::vector<ReportArm> arms;
};

struct AblationReport {
  std::string recipe;
  std::vector<uint64_t> seeds;
  std::string shared;  // which stages all seeds share, for people
  std::vector<Comparison> comparisons;
  std::vector<std::pair<std::string, std::string>> versions, machine;
};

std::vector<ReportTable> ablation_tables(const AblationReport& report, const Comparison& comparison);
/// One sentence of the last stage that is scored: the best arm by loss and by accuracy, and which arms differ from their
/// reference.
std::string ablation_verdict(const AblationReport& report);
/// Dots an arm: mean, one standard deviation, every seed; arms sorted by loss; a line at the first reference's mean.
Svg ablation_chart(const Comparison& comparison);

std::string ablation_markdown(const AblationReport& report);
/// One line for each compared stage, arm and seed.
std::string ablation_csv(const AblationReport& report);
std::string ablation_json(const AblationReport& report);
std::string ablation_html(const AblationReport& report);
std::string ablation_svg(const AblationReport& report);

/// From an ablation's run folder; what is not finished is absent.
AblationReport collect_ablation(const std::filesystem::path& run_root);
/// Writes ablation.json, .csv, .svg, .md, .html, each by rename; returns the verdict.
std::string write_ablation_report(const std::filesystem::path& run_root);

}  // namespace coppice
