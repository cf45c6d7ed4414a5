// The verdict: one sentence from numbers alone. Every comparison looks at true-label loss and at accuracy; where they disagree it says "mixed", within noise it
// says so.
//   loss:     noise is 2/sqrt(n) nats, n scored positions (paired differences of two models have a spread of about 1 nat a token); 0.01 when n is unknown
//   accuracy: two standard errors of a difference of independent shares; 0.002 when n is unknown
// That is noise of the held-out sample; what another seed would do, one run cannot know.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "pruning/scores.h"
#include "recipes/report.h"
#include "recipes/report_tables.h"
#include "src/base/log.h"

namespace coppice {
namespace {

const ReportModel* last_of(const Report& report, std::string_view role, bool (*fits)(const ReportModel&) = nullptr) {
  const ReportModel* found = nullptr;
  for (const ReportModel& model : report.models)
    if (model.role == role && std::isfinite(model.score.loss) && (fits == nullptr || fits(model))) found = &model;
  return found;
}

/// +1: a is better than b by more than noise, -1: worse, 0: no difference that the sample shows, or nothing to compare.
int sign_of_loss(const ReportModel& a, const ReportModel& b, int64_t n) {
  const double noise = n > 0 ? 2.0 / std::sqrt(static_cast<double>(n)) : 0.01, gain = b.score.loss - a.score.loss;
  return std::isfinite(gain) && std::abs(gain) > noise ? (gain > 0 ? 1 : -1) : 0;
}

int sign_of_accuracy(const ReportModel& a, const ReportModel& b, int64_t n) {
  const double p = a.score.accuracy, q = b.score.accuracy, gain = p - q;
  const double noise = n > 0 ? 2.0 * std::sqrt((p * (1 - p) + q * (1 - q)) / static_cast<double>(n)) : 0.002;
  return std::isfinite(gain) && std::abs(gain) > noise ? (gain > 0 ? 1 : -1) : 0;
}

std::string numbers(const ReportModel& a, const ReportModel& b) {
  std::string text = fmt::format("loss {} against {}", fixed_text(a.score.loss, 3), fixed_text(b.score.loss, 3));
  if (std::isfinite(a.score.accuracy) && std::isfinite(b.score.accuracy))
    text += fmt::format(", accuracy {} against {}", share_text(a.score.accuracy), share_text(b.score.accuracy));
  return text;
}

/// Tokens differ by more than 2 %: the comparison is not at equal training.
std::string unequal_tokens(const ReportModel& a, const ReportModel& b) {
  const double larger = std::max(a.training_tokens, b.training_tokens);
  if (larger <= 0 || std::abs(a.training_tokens - b.training_tokens) <= 0.02 * larger) return "";
  return fmt::format(", on {} tokens against {}", format_count(a.training_tokens), format_count(b.training_tokens));
}

struct Evidence {
  std::vector<std::string> good, bad, mixed, none;

  /// `what` reads as "training from scratch": the thing that `a`, the method's model, is held against. Same work: unequal tokens are named.
  void compare(const std::string& what, const ReportModel& a, const ReportModel& b, bool same_work = true) {
    const int64_t n = a.positions > 0 && b.positions > 0 ? std::min(a.positions, b.positions) : 0;
    const int loss = sign_of_loss(a, b, n), accuracy = sign_of_accuracy(a, b, n);
    const std::string text = fmt::format("{} ({}{})", what, numbers(a, b), same_work ? unequal_tokens(a, b) : "");
    if (loss == 0 && accuracy == 0)
      none.push_back(text);
    else if (loss >= 0 && accuracy >= 0)
      good.push_back(text);
    else if (loss <= 0 && accuracy <= 0)
      bad.push_back(text);
    else
      mixed.push_back(fmt::format("{} by {}", text, loss > 0 ? "loss and not by accuracy" : "accuracy and not by loss"));
  }
  bool empty() const { return good.empty() && bad.empty() && mixed.empty() && none.empty(); }
};

std::string listed(const std::vector<std::string>& items) {
  if (items.size() < 2) return items.empty() ? "" : items.front();
  return fmt::format("{} and {}", fmt::join(items.begin(), items.end() - 1, ", "), items.back());
}

/// "; it beats ... ; against the method, it loses to ..."
std::string clauses(const Evidence& evidence, const std::string& who) {
  std::string text;
  if (!evidence.good.empty()) text += fmt::format("; {} beats {}", who, listed(evidence.good));
  if (!evidence.bad.empty()) text += fmt::format("; against the method, {} loses to {}", who, listed(evidence.bad));
  if (!evidence.mixed.empty()) text += fmt::format("; {} wins only in part against {}", who, listed(evidence.mixed));
  if (!evidence.none.empty()) text += fmt::format("; {} is no different, within noise, from {}", who, listed(evidence.none));
  return text;
}

std::string subject(const Report& report, const ReportModel& model, const char* kind) {
  const ReportModel* source = last_of(report, "source");
  std::string text = fmt::format("the {} '{}'", kind, model.name);
  if (source == nullptr || source->parameters <= 0 || !std::isfinite(source->score.loss))
    return text +
           fmt::format(" has {} parameters and a held-out loss of {}", format_count(static_cast<double>(model.parameters)), fixed_text(model.score.loss, 3));
  text += fmt::format(" has {} of the source's {} parameters", share_text(static_cast<double>(model.parameters) / static_cast<double>(source->parameters), 0),
                      format_count(static_cast<double>(source->parameters)));
  if (std::isfinite(model.score.accuracy) && source->score.accuracy > 0)
    text += fmt::format(" and {} of its accuracy ({} of {})", share_text(model.score.accuracy / source->score.accuracy, 0), share_text(model.score.accuracy),
                        share_text(source->score.accuracy));
  text += fmt::format(" at a held-out loss of {} against {}", fixed_text(model.score.loss, 3), fixed_text(source->score.loss, 3));
  if (std::isfinite(model.score.teacher_agreement))
    text += fmt::format(", agreeing with the source on {} of tokens", share_text(model.score.teacher_agreement, 0));
  return text;
}

}  // namespace

std::string verdict_of(const Report& report) {
  const ReportModel* student = last_of(report, "student");
  const ReportModel* pruned = last_of(report, "pruned");
  const ReportModel* judged = student != nullptr ? student : pruned;
  if (judged == nullptr) return "Nothing to judge yet: no student and no pruned model has been scored.";

  Evidence training, cut;
  if (student != nullptr) {
    if (const ReportModel* scratch = last_of(report, "scratch")) training.compare("training the same shape from scratch", *student, *scratch);
    if (const ReportModel* plain = last_of(report, "plain")) training.compare("training without teacher labels", *student, *plain);
    if (pruned != nullptr) training.compare("its own start right after the cut", *student, *pruned, /*same_work=*/false);
  }
  for (const ScoreRow& row : score_table()) {
    const std::string score = row.name;
    const ReportModel* trained = last_of(report, score, [](const ReportModel& model) { return model.training_tokens > 0; });
    const ReportModel* untrained = last_of(report, score, [](const ReportModel& model) { return model.training_tokens == 0; });
    if (student != nullptr && trained != nullptr) training.compare(fmt::format("the same training after a cut by {}", score), *student, *trained);
    if (pruned != nullptr && untrained != nullptr) cut.compare(fmt::format("one by {}", score), *pruned, *untrained);
  }

  std::string text = subject(report, *judged, student != nullptr ? "student" : "pruned model");
  text.front() = 'T';
  text += clauses(training, "it") + clauses(cut, "before training, the learned cut");
  if (training.empty() && cut.empty()) text += "; nothing it could be held against (from scratch, without labels, other cuts) has been scored";

  const double method = total_of(report, StagePurpose::method, &ReportStage::flops), source = total_of(report, StagePurpose::source, &ReportStage::flops);
  if (method > 0 && source > 0) text += fmt::format("; the source's own training, {:.2g} times the method's FLOPs, is not counted", source / method);
  const bool unfinished = std::ranges::any_of(report.stages, [](const ReportStage& stage) { return stage.status != "done"; });
  if (unfinished) text = "So far, t" + text.substr(1);
  return text + ".";
}

}  // namespace coppice
