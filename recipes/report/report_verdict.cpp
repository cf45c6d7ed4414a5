// The verdict: three short sentences and the table they rest on. What came out; whether it holds against its
// comparisons, what it loses to first; what is not counted or not known. Whatever else there is to say stands below.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iterator>

#include "recipes/report/report.h"
#include "recipes/report/report_speed.h"
#include "recipes/report/report_tables.h"
#include "src/base/log.h"

namespace coppice {
namespace {

/// Tokens differ by more than 2 %: the comparison is not at equal training.
std::string unequal_tokens(const ReportModel& a, const ReportModel& b) {
  const double larger = std::max(a.training_tokens, b.training_tokens);
  if (b.training_tokens == 0 || std::abs(a.training_tokens - b.training_tokens) <= 0.02 * larger) return "";
  return fmt::format(" (on {} tokens, not {})", format_count(b.training_tokens), format_count(a.training_tokens));
}

/// " by loss and accuracy": the measures in which all rows have this outcome; empty without any.
std::string by_measures(const std::vector<ReportComparison>& rows, ReportOutcome outcome) {
  std::vector<std::string> names;
  for (const ReportMeasure& measure : kReportMeasures)
    if (std::ranges::all_of(rows, [&](const ReportComparison& row) { return row.*(measure.by) == outcome; }))
      names.emplace_back(measure.name);
  return names.empty() ? "" : " by " + listed(names);
}

/// "it loses to C by loss; it beats A and B by loss and accuracy": what speaks against it first and by name, of many
/// wins only the number.
std::string clauses(const std::vector<ReportComparison>& rows, const std::string& who) {
  constexpr size_t kNamed = 3;
  const struct {
    ReportOutcome outcome;
    const char* words;
  } kinds[] = {{ReportOutcome::worse, "loses to"},
               {ReportOutcome::mixed, "wins only in part against"},
               {ReportOutcome::even, "is no different, within noise, from"},
               {ReportOutcome::better, "beats"}};
  std::vector<std::string> parts;
  for (const auto& [outcome, words] : kinds) {
    std::vector<ReportComparison> found;
    std::ranges::copy_if(rows, std::back_inserter(found),
                         [&](const ReportComparison& row) { return row.outcome == outcome; });
    if (found.empty()) continue;
    std::vector<std::string> names;
    for (const ReportComparison& row : found) names.push_back(row.against + unequal_tokens(*row.judged, *row.other));
    const std::string named = outcome != ReportOutcome::better || names.size() <= kNamed ? listed(names)
                              : names.size() == rows.size()
                                  ? fmt::format("all {} that it is held against", rows.size())
                                  : fmt::format("{} of the {} that it is held against", names.size(), rows.size());
    const bool one_sided = outcome == ReportOutcome::better || outcome == ReportOutcome::worse;
    parts.push_back(fmt::format("{} {} {}{}", who, words, named, one_sided ? by_measures(found, outcome) : ""));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

std::string sentence(std::string text) {
  if (!text.empty()) text.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
  return text.empty() ? text : text + ".";
}

std::string noun_of(const ReportModel& model) {
  if (model.role == "student") return "student";
  if (model.role == "pruned") return "pruned model";
  if (model.role == "plain") return "model trained after the cut";
  if (model.role == "distilled") return "distilled model";
  if (model.role == "control") return "control";
  if (model.role == "source") return "source";
  if (model.role.empty() || model.role == "scratch" || model.role == "teacher") return "model";
  return fmt::format("model cut by {}", model.role);
}

/// "the student 'long' keeps 91% of its source's accuracy with 50% of its parameters"
std::string result_of(const Report& report, const ReportModel& model) {
  const ReportModel* source = source_of(report, model);
  const std::string who = fmt::format("the {} '{}'", noun_of(model), model.name);
  if (source == nullptr || source->parameters <= 0) {
    const std::string text =
        fmt::format("{} has {} parameters, a {} loss of {}", who, format_count(static_cast<double>(model.parameters)),
                    is_on_tuning_text(model) ? "tuning" : "held-out", fixed_text(model.score.loss, 3));
    return std::isfinite(model.score.accuracy)
               ? text + fmt::format(" and an accuracy of {}", share_text(model.score.accuracy))
               : text;
  }
  const bool is_cut = model.role != "distilled" && std::ranges::any_of(report.stages, [&](const ReportStage& stage) {
                        return stage.kind == "prune";
                      });
  const std::string parameters =
      share_text(static_cast<double>(model.parameters) / static_cast<double>(source->parameters), 0);
  const char* whose = is_cut ? "its source's" : "its teacher's";
  if (std::isfinite(model.score.accuracy) && source->score.accuracy > 0)
    return fmt::format("{} keeps {} of {} accuracy with {} of its parameters", who,
                       share_text(model.score.accuracy / source->score.accuracy, 0), whose, parameters);
  return fmt::format("{} has {} of {} parameters and a loss of {} against {}", who, parameters, whose,
                     fixed_text(model.score.loss, 3), fixed_text(source->score.loss, 3));
}

/// A run without a scored model: what its training stages saw of held-out text.
std::vector<std::string> without_scores(const Report& report) {
  std::vector<std::string> ends;
  for (const ReportStage& stage : report.stages) {
    double loss = kAbsent;
    for (const auto& line : stage.metrics)
      if (const auto found = line.find("heldout_loss"); found != line.end() && std::isfinite(found->second))
        loss = found->second;
    if (std::isfinite(loss)) ends.push_back(fmt::format("'{}' at {}", stage.name, fixed_text(loss, 3)));
  }
  const bool evaluates =
      std::ranges::any_of(report.stages, [](const ReportStage& stage) { return stage.kind == "evaluate"; });
  std::vector<std::string> text = {
      fmt::format("Nothing to judge yet: no model has been scored{}.",
                  evaluates || report.stages.empty() ? "" : ", and no stage of kind evaluate is there to do it")};
  if (!ends.empty())
    text.push_back(fmt::format("Held-out loss at the end of training, each on a sample of its own: {}.", listed(ends)));
  return text;
}

/// What a reader must know beside the wins and losses.
std::string caveats_of(const Report& report, const ReportModel& judged, const std::vector<ReportComparison>& cuts) {
  std::vector<std::string> parts;
  std::vector<ReportComparison> lost;
  std::ranges::copy_if(cuts, std::back_inserter(lost),
                       [](const ReportComparison& row) { return row.outcome == ReportOutcome::worse; });
  if (!lost.empty()) parts.push_back(clauses(lost, "before training its cut"));
  if (is_on_tuning_text(judged)) parts.emplace_back("it is scored on the tuning text, by which options are chosen");
  const double method = total_of(report, StagePurpose::method, &ReportStage::flops),
               source = total_of(report, StagePurpose::source, &ReportStage::flops);
  if (method > 0 && source > 0)
    parts.push_back(
        fmt::format("the source's own training, {:.2g} times the method's FLOPs, is not counted", source / method));
  parts.emplace_back("one run cannot tell what another seed would do");
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace

std::vector<std::string> verdict_sentences(const Report& report) {
  const ReportModel* judged = judged_model(report);
  if (judged == nullptr) return without_scores(report);
  std::vector<ReportComparison> own, cuts;
  const std::vector<ReportComparison> all = comparisons_of(report);
  for (const ReportComparison& row : all)
    if (row.is_peer) (row.judged == judged ? own : cuts).push_back(row);

  std::string result = result_of(report, *judged);
  if (const std::string speed = speed_clause(report); !speed.empty()) result += ", and " + speed;
  if (std::ranges::any_of(report.stages, [](const ReportStage& stage) { return stage.status != "done"; }))
    result = "so far, " + result;
  std::vector<std::string> text = {sentence(result)};

  if (judged->role == "control") {
    text.emplace_back("Nothing was cut: it is as wide as its source, a control for runs that cut.");
    return text;
  }
  if (judged->role == "source" || judged->role == "scratch" || judged->role == "teacher" || judged->role.empty()) {
    text.push_back(all.empty() ? "Nothing else has been scored, so it is held against nothing."
                               : fmt::format("Of {} models scored it has the lowest loss; no other is a student.",
                                             all.size() + 1));
    return text;
  }
  text.push_back(own.empty()
                     ? "Nothing it could be held against (from scratch, without labels, other cuts) has been scored."
                     : sentence(clauses(own, "it")));
  text.push_back(sentence(caveats_of(report, *judged, cuts)));
  return text;
}

std::string verdict_of(const Report& report) { return fmt::format("{}", fmt::join(verdict_sentences(report), " ")); }

std::string verdict_text(const Report& report) {
  std::string text = fmt::format("{}\n", fmt::join(verdict_sentences(report), "\n"));
  const ReportTable table = comparisons_table(report);
  return table.rows.empty() ? text : text + "\n" + table_text(table);
}

}  // namespace coppice
