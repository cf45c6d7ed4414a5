// What the verdict rests on: which model is judged, and what it is held against. Roles come from the recipe
// (lineage.h), order from the stages' `from`. Every comparison looks at true-label loss, at accuracy and at agreement
// with the teacher; where they disagree it is mixed. What is no difference:
//   loss: 2/sqrt(n) nats, n scored positions (paired differences of two models have a spread of about 1 nat a token);
//         0.01 when n is unknown
//   accuracy, agreement: two standard errors of a difference of independent shares; 0.002 when n is unknown. The
//   teacher
//         itself agrees with itself: no evidence
// That is noise of the scored sample; what another seed would do, one run cannot know.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <tuple>
#include <utility>

#include "recipes/report/report.h"

namespace coppice {
namespace {

bool is_scored(const ReportModel& model) { return std::isfinite(model.score.loss); }

/// Every role but these is the name of a one-shot score.
bool is_score(const std::string& role) {
  constexpr std::array kOthers = {"",      "source",  "pruned",  "student",  "scratch",
                                  "plain", "control", "teacher", "distilled"};
  return std::ranges::find(kOthers, role) == kOthers.end();
}

/// The scores that models were cut by, in the order in which the models come.
std::vector<std::string> scores_of(const Report& report) {
  std::vector<std::string> scores;
  for (const ReportModel& model : report.models)
    if (is_score(model.role) && std::ranges::find(scores, model.role) == scores.end()) scores.push_back(model.role);
  return scores;
}

/// Lower = rather judged.
int rank_of(const ReportModel& model) {
  const bool trained = model.training_tokens > 0;
  if (model.role == "student") return 0;
  if (model.role == "plain") return 1;
  if (model.role == "pruned") return 2;
  if (is_score(model.role)) return trained ? 3 : 4;
  if (model.role == "distilled") return 5;
  return model.role == "control" ? 6 : 7;
}

/// Stages above `name`, nearest first; a file that names a stage as its own start ends it.
std::vector<std::string> chain_above(const Report& report, const std::string& name) {
  std::vector<std::string> chain;
  const auto parent = [&](const std::string& of) {
    const auto found = std::ranges::find(report.stages, of, &ReportStage::name);
    return found == report.stages.end() ? std::string() : found->from;
  };
  for (std::string at = parent(name); !at.empty() && at != name && std::ranges::find(chain, at) == chain.end();
       at = parent(at))
    chain.push_back(at);
  return chain;
}

bool same_size(const ReportModel& a, const ReportModel& b) {
  const auto p = static_cast<double>(a.parameters), q = static_cast<double>(b.parameters);
  return std::abs(p - q) <= 0.02 * std::max(p, q);
}

using Filter = std::function<bool(const ReportModel&)>;

/// Scored beside `judged` on the same windows, and fit.
std::vector<const ReportModel*> beside(const Report& report, const ReportModel& judged, const Filter& fits) {
  std::vector<const ReportModel*> found;
  for (const ReportModel& model : report.models)
    if (&model != &judged && is_scored(model) && model.evaluation == judged.evaluation && fits(model))
      found.push_back(&model);
  return found;
}

/// Of these the one trained most nearly as long, then the better one.
const ReportModel* nearest_in_tokens(const std::vector<const ReportModel*>& models, const ReportModel& judged) {
  const auto key = [&](const ReportModel* model) {
    return std::pair(std::abs(model->training_tokens - judged.training_tokens), model->score.loss);
  };
  return models.empty() ? nullptr : *std::ranges::min_element(models, {}, key);
}

/// +1: a is better than b by more than noise, -1: worse, 0: no difference that the sample shows, or nothing to compare.
int sign_of_loss(const ReportModel& a, const ReportModel& b, int64_t n) {
  const double noise = n > 0 ? 2.0 / std::sqrt(static_cast<double>(n)) : 0.01, gain = b.score.loss - a.score.loss;
  return std::isfinite(gain) && std::abs(gain) > noise ? (gain > 0 ? 1 : -1) : 0;
}

/// The same of two shares of correct tokens.
int sign_of_share(double p, double q, int64_t n) {
  const double noise = n > 0 ? 2.0 * std::sqrt((p * (1 - p) + q * (1 - q)) / static_cast<double>(n)) : 0.002;
  return std::isfinite(p - q) && std::abs(p - q) > noise ? (p > q ? 1 : -1) : 0;
}

ReportOutcome outcome_of(int sign) {
  return sign > 0 ? ReportOutcome::better : sign < 0 ? ReportOutcome::worse : ReportOutcome::even;
}

ReportComparison compare(const ReportModel& judged, const ReportModel& other, std::string against, bool is_peer) {
  const ReportScore &a = judged.score, &b = other.score;
  const int64_t n = judged.positions > 0 && other.positions > 0 ? std::min(judged.positions, other.positions) : 0;
  const bool is_teacher = a.teacher_agreement == 1 || b.teacher_agreement == 1;
  const int loss = sign_of_loss(judged, other, n), accuracy = sign_of_share(a.accuracy, b.accuracy, n),
            agreement = is_teacher ? 0 : sign_of_share(a.teacher_agreement, b.teacher_agreement, n);
  const auto [least, most] = std::minmax({loss, accuracy, agreement});
  return {.judged = &judged,
          .other = &other,
          .against = std::move(against),
          .is_peer = is_peer,
          .by_loss = outcome_of(loss),
          .by_accuracy = outcome_of(accuracy),
          .by_agreement = outcome_of(agreement),
          .outcome = least < 0 && most > 0 ? ReportOutcome::mixed : outcome_of(least + most)};
}

/// The untrained cut that a model began as, or one of its size; the model itself when it is one.
const ReportModel* cut_of(const Report& report, const ReportModel& model, bool& is_its_own) {
  const auto is_cut = [](const ReportModel& other) {
    return other.training_tokens == 0 && (other.role == "pruned" || other.role == "control" || is_score(other.role));
  };
  is_its_own = true;
  if (is_cut(model)) return &model;
  for (const std::string& name : chain_above(report, model.name))
    if (const auto found =
            beside(report, model, [&](const ReportModel& other) { return other.name == name && is_cut(other); });
        !found.empty())
      return found[0];
  is_its_own = false;
  if (model.role != "student" && model.role != "plain") return nullptr;
  return nearest_in_tokens(
      beside(report, model,
             [&](const ReportModel& other) { return other.role == "pruned" && same_size(other, model); }),
      model);
}

/// Whether another scored model of its kind comes from it: it is no end of a chain.
bool goes_on(const Report& report, const ReportModel& model) {
  const auto comes_from_it = [&](const ReportModel& other) {
    const std::vector<std::string> chain = chain_above(report, other.name);
    return rank_of(other) == rank_of(model) && other.name != model.name &&
           std::ranges::find(chain, model.name) != chain.end();
  };
  return rank_of(model) < 7 && !beside(report, model, comes_from_it).empty();
}

bool is_exported(const Report& report, const ReportModel& model) {
  return std::ranges::any_of(
      report.stages, [&](const ReportStage& stage) { return stage.kind == "export" && stage.from == model.name; });
}

}  // namespace

const ReportModel* judged_model(const Report& report) {
  std::map<std::string, int64_t> scored;  // models of each evaluation
  for (const ReportModel& model : report.models)
    if (is_scored(model)) ++scored[model.evaluation];
  const auto key = [&](const ReportModel& of) {
    return std::tuple(rank_of(of), is_on_tuning_text(of), -scored[of.evaluation], !is_exported(report, of),
                      of.score.loss);
  };
  const ReportModel* best = nullptr;
  for (const ReportModel& model : report.models)
    if (is_scored(model) && !goes_on(report, model) && (best == nullptr || key(model) < key(*best))) best = &model;
  return best;
}

const ReportModel* source_of(const Report& report, const ReportModel& model) {
  const std::vector<const ReportModel*> sources =
      beside(report, model, [](const ReportModel& other) { return other.role == "source"; });
  for (const std::string& name : chain_above(report, model.name))
    for (const ReportModel* source : sources)
      if (source->name == name) return source;
  return sources.empty() || model.role == "source" ? nullptr : sources.front();
}

namespace {

/// Rows of one report, gathered; a pair of models once.
class Comparisons {
 public:
  Comparisons(const Report& report, const ReportModel& judged) : report_(report), judged_(judged) {}

  void add(const ReportModel& subject, const ReportModel* other, const std::string& against, bool is_peer) {
    if (other == nullptr || std::ranges::any_of(rows_, [&](const ReportComparison& row) {
          return row.judged == &subject && row.other == other;
        }))
      return;
    rows_.push_back(compare(subject, *other, against, is_peer));
  }
  /// Of `subject`'s size, scored on the same windows, and fit.
  std::vector<const ReportModel*> peers(const ReportModel& subject, const Filter& fits) const {
    return beside(report_, judged_, [&](const ReportModel& other) {
      return &other != &subject && same_size(other, subject) && fits(other);
    });
  }
  void add_nearest(const ReportModel& subject, const Filter& fits, const std::string& against) {
    add(subject, nearest_in_tokens(peers(subject, fits), subject), against, /*is_peer=*/true);
  }

  /// What stands for or against a model that was trained: other ways to one of its size.
  void add_ways(const ReportModel* cut, bool own_cut) {
    add_nearest(judged_, has_role("scratch"), "training the same shape from scratch");
    add_nearest(judged_, has_role("plain"), "training without teacher labels");
    if (own_cut && cut != nullptr)
      add(judged_, cut, cut->role == "control" ? "its own start" : "its own start right after the cut", true);
    for (const std::string& score : scores_of(report_)) {
      if (judged_.role == score) continue;
      const size_t before = rows_.size();
      add_nearest(
          judged_, [&](const ReportModel& other) { return other.role == score && other.training_tokens > 0; },
          fmt::format("the same training after a cut by {}", score));
      if (rows_.size() == before)
        add_nearest(judged_, has_role(score), fmt::format("a cut by {}", score));  // nobody trained it
    }
  }

  /// Ends of other chains of students, the source, and the source trained on.
  void add_others() {
    const std::vector<std::string> chain = chain_above(report_, judged_.name);
    const auto is_above = [&](const ReportModel& other) { return std::ranges::find(chain, other.name) != chain.end(); };
    for (const ReportModel* other : beside(report_, judged_, [&](const ReportModel& each) {
           return (each.role == "student" || each.role == "distilled") && !is_above(each) && !goes_on(report_, each);
         })) {
      const bool peer = same_size(*other, judged_);
      add(judged_, other, peer ? fmt::format("the student '{}'", other->name) : "a student of another size", peer);
    }
    if (const ReportModel* source = source_of(report_, judged_))
      add(judged_, source, is_above(*source) ? "the source" : "its teacher", false);
    for (const ReportModel* other : beside(report_, judged_, [](const ReportModel& each) {
           return each.role == "control" && each.training_tokens > 0;
         }))
      add(judged_, other, "the source trained on without a cut", false);
  }

  /// A cut that nobody has trained yet against cuts by other scores.
  void add_cuts(const ReportModel& cut) {
    for (const std::string& score : scores_of(report_))
      if (cut.role != score)
        add_nearest(
            cut, [&](const ReportModel& other) { return other.role == score && other.training_tokens == 0; },
            fmt::format("a cut by {}", score));
  }

  std::vector<ReportComparison> rows() && { return std::move(rows_); }

 private:
  static Filter has_role(std::string role) {
    return [role = std::move(role)](const ReportModel& other) { return other.role == role; };
  }

  const Report& report_;
  const ReportModel& judged_;
  std::vector<ReportComparison> rows_;
};

}  // namespace

std::vector<ReportComparison> comparisons_of(const Report& report) {
  const ReportModel* judged = judged_model(report);
  if (judged == nullptr) return {};
  Comparisons rows(report, *judged);
  bool own_cut = false;
  const ReportModel* cut = cut_of(report, *judged, own_cut);
  if (rank_of(*judged) < 7) {
    if (cut != judged) rows.add_ways(cut, own_cut);
    rows.add_others();
  } else {
    for (const ReportModel* other : beside(report, *judged, [](const ReportModel&) { return true; }))
      rows.add(*judged, other, "another model", false);
  }
  if (cut != nullptr && cut->role != "control") rows.add_cuts(*cut);
  return std::move(rows).rows();
}

}  // namespace coppice
