// The verdict: three short sentences and the table they rest on. What came out; whether it holds against its
// comparisons, evidence against it included; what the cut alone was worth, and what is not counted.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "recipes/report/report.h"
#include "recipes/report/report_speed.h"
#include "recipes/report/report_tables.h"
#include "src/base/log.h"

namespace coppice {
namespace {

std::string listed(const std::vector<std::string>& items) {
  if (items.size() < 2) return items.empty() ? "" : items.front();
  return fmt::format("{} and {}", fmt::join(items.begin(), items.end() - 1, ", "), items.back());
}

/// Tokens differ by more than 2 %: the comparison is not at equal training.
std::string unequal_tokens(const ReportModel& a, const ReportModel& b) {
  const double larger = std::max(a.training_tokens, b.training_tokens);
  if (b.training_tokens == 0 || std::abs(a.training_tokens - b.training_tokens) <= 0.02 * larger) return "";
  return fmt::format(" (on {} tokens, not {})", format_count(b.training_tokens), format_count(a.training_tokens));
}

/// "it beats A and B; against the method, it loses to C": every loss is named, of many wins only the number.
std::string clauses(const std::vector<ReportComparison>& rows, const std::string& who) {
  constexpr size_t kNamed = 3;
  const struct {
    ReportOutcome outcome;
    const char* words;
  } kinds[] = {{ReportOutcome::better, "{} beats {}"},
               {ReportOutcome::worse, "against the method, {} loses to {}"},
               {ReportOutcome::mixed, "{} wins only in part against {}"},
               {ReportOutcome::even, "{} is no different, within noise, from {}"}};
  std::vector<std::string> parts;
  for (const auto& [outcome, words] : kinds) {
    std::vector<std::string> names;
    for (const ReportComparison& row : rows)
      if (row.outcome == outcome) names.push_back(row.against + unequal_tokens(*row.judged, *row.other));
    if (names.empty()) continue;
    const bool all = names.size() == rows.size();
    const std::string named =
        names.size() <= kNamed || outcome == ReportOutcome::worse
            ? listed(names)
            : fmt::format("{} {} comparisons", all ? "all" : fmt::format("{} of", names.size()), rows.size());
    parts.push_back(fmt::format(fmt::runtime(words), who, named));
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

/// "the student 'long' has 50% of the source's 800k parameters and 91% of its accuracy (...) at a held-out loss of 3.2
/// against 3.0"
std::string result_of(const Report& report, const ReportModel& model) {
  const ReportModel* source = source_of(report, model);
  std::string text = fmt::format("the {} '{}'", noun_of(model), model.name);
  if (source == nullptr || source->parameters <= 0) {
    text += fmt::format(" has {} parameters, a held-out loss of {}",
                        format_count(static_cast<double>(model.parameters)), fixed_text(model.score.loss, 3));
    return std::isfinite(model.score.accuracy)
               ? text + fmt::format(" and an accuracy of {}", share_text(model.score.accuracy))
               : text;
  }
  const bool is_cut = model.role != "distilled" && std::ranges::any_of(report.stages, [&](const ReportStage& stage) {
                        return stage.kind == "prune";
                      });
  text += fmt::format(" has {} of {} {} parameters",
                      share_text(static_cast<double>(model.parameters) / static_cast<double>(source->parameters), 0),
                      is_cut ? "the source's" : "its teacher's", format_count(static_cast<double>(source->parameters)));
  if (std::isfinite(model.score.accuracy) && source->score.accuracy > 0)
    text +=
        fmt::format(" and {} of its accuracy ({} of {})", share_text(model.score.accuracy / source->score.accuracy, 0),
                    share_text(model.score.accuracy), share_text(source->score.accuracy));
  return text + fmt::format(" at a held-out loss of {} against {}", fixed_text(model.score.loss, 3),
                            fixed_text(source->score.loss, 3));
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

std::string cost_of(const Report& report) {
  const double method = total_of(report, StagePurpose::method, &ReportStage::flops),
               source = total_of(report, StagePurpose::source, &ReportStage::flops);
  return method > 0 && source > 0
             ? fmt::format("the source's own training, {:.2g} times the method's FLOPs, is not counted",
                           source / method)
             : "";
}

}  // namespace

std::vector<std::string> verdict_sentences(const Report& report) {
  const ReportModel* judged = judged_model(report);
  if (judged == nullptr) return without_scores(report);
  std::vector<ReportComparison> training, cut;
  const std::vector<ReportComparison> all = comparisons_of(report);
  for (const ReportComparison& row : all)
    if (row.is_peer) (row.judged == judged ? training : cut).push_back(row);

  std::string result = result_of(report, *judged);
  if (std::ranges::any_of(report.stages, [](const ReportStage& stage) { return stage.status != "done"; }))
    result = "so far, " + result;
  std::vector<std::string> text = {sentence(result)};
  if (const std::string speed = speed_clause(report); !speed.empty()) text.push_back(sentence(speed));

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
  if (!training.empty())
    text.push_back(sentence(clauses(training, "it")));
  else if (cut.empty())
    text.emplace_back("Nothing it could be held against (from scratch, without labels, other cuts) has been scored.");

  std::string last = clauses(cut, "before training, its cut");
  if (const std::string cost = cost_of(report); !cost.empty()) last += (last.empty() ? "" : "; ") + cost;
  if (!last.empty()) text.push_back(sentence(last));
  return text;
}

std::string verdict_of(const Report& report) { return fmt::format("{}", fmt::join(verdict_sentences(report), " ")); }

std::string verdict_text(const Report& report) {
  std::string text = fmt::format("{}\n", fmt::join(verdict_sentences(report), "\n"));
  const ReportTable table = comparisons_table(report);
  return table.rows.empty() ? text : text + "\n" + table_text(table);
}

}  // namespace coppice
