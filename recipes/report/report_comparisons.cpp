// What the verdict rests on: which model is judged, and what it is held against. Roles come from the recipe
// (lineage.h), order from the stages' `from`. Every comparison looks at true-label loss and at accuracy; where they
// disagree it is mixed.
//   loss:     noise is 2/sqrt(n) nats, n scored positions (paired differences of two models have a spread of about 1
//   nat a token); 0.01 when n is unknown accuracy: two standard errors of a difference of independent shares; 0.002
//   when n is unknown
// That is noise of the held-out sample; what another seed would do, one run cannot know.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <tuple>

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

int sign_of_accuracy(const ReportModel& a, const ReportModel& b, int64_t n) {
  const double p = a.score.accuracy, q = b.score.accuracy, gain = p - q;
  const double noise = n > 0 ? 2.0 * std::sqrt((p * (1 - p) + q * (1 - q)) / static_cast<double>(n)) : 0.002;
  return std::isfinite(gain) && std::abs(gain) > noise ? (gain > 0 ? 1 : -1) : 0;
}

ReportComparison compare(const ReportModel& judged, const ReportModel& other, std::string against, bool is_peer) {
  const auto outcome = [](int sign) {
    return sign > 0 ? ReportOutcome::better : sign < 0 ? ReportOutcome::worse : ReportOutcome::even;
  };
  const int64_t n = judged.positions > 0 && other.positions > 0 ? std::min(judged.positions, other.positions) : 0;
  const int loss = sign_of_loss(judged, other, n), accuracy = sign_of_accuracy(judged, other, n);
  return {.judged = &judged,
          .other = &other,
          .against = std::move(against),
          .is_peer = is_peer,
          .by_loss = outcome(loss),
          .by_accuracy = outcome(accuracy),
          .outcome = loss * accuracy < 0 ? ReportOutcome::mixed : outcome(loss + accuracy)};
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

}  // namespace

const ReportModel* judged_model(const Report& report) {
  std::map<std::string, int64_t> scored;  // models of each evaluation
  for (const ReportModel& model : report.models)
    if (is_scored(model)) ++scored[model.evaluation];
  const ReportModel* best = nullptr;
  for (const ReportModel& model : report.models) {
    if (!is_scored(model)) continue;
    const int rank = rank_of(model);
    const bool goes_on = std::ranges::any_of(
        beside(report, model, [&](const ReportModel& other) { return rank_of(other) == rank; }),
        [&](const auto* other) {
          const std::vector<std::string> chain = chain_above(report, other->name);
          return rank < 7 && other->name != model.name && std::ranges::find(chain, model.name) != chain.end();
        });
    const auto key = [&](const ReportModel& of) {
      return std::tuple(rank_of(of), -scored[of.evaluation], of.score.loss);
    };
    if (!goes_on && (best == nullptr || key(model) < key(*best))) best = &model;
  }
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

std::vector<ReportComparison> comparisons_of(const Report& report) {
  std::vector<ReportComparison> rows;
  const ReportModel* judged = judged_model(report);
  if (judged == nullptr) return rows;
  const ReportModel& model = *judged;
  std::vector<const ReportModel*> shown;
  const auto add = [&](const ReportModel& subject, const ReportModel* other, const std::string& against, bool is_peer) {
    if (other == nullptr || std::ranges::find(shown, other) != shown.end()) return;
    rows.push_back(compare(subject, *other, against, is_peer));
    shown.push_back(other);
  };
  const auto peers = [&](const ReportModel& of, const Filter& fits) {
    return beside(report, model,
                  [&](const ReportModel& other) { return &other != &of && same_size(other, of) && fits(other); });
  };
  bool own_cut = false;
  const ReportModel* cut = cut_of(report, model, own_cut);
  const bool is_cut = cut == &model;
  if (rank_of(model) < 7 && !is_cut) {
    const auto of_role = [&](const char* role) {
      return nearest_in_tokens(peers(model, [&](const ReportModel& other) { return other.role == role; }), model);
    };
    add(model, of_role("scratch"), "training the same shape from scratch", true);
    add(model, of_role("plain"), "training without teacher labels", true);
    if (own_cut) add(model, cut, cut->role == "control" ? "its own start" : "its own start right after the cut", true);
    for (const std::string& score : scores_of(report)) {
      if (model.role == score) continue;
      const auto trained =
          peers(model, [&](const ReportModel& other) { return other.role == score && other.training_tokens > 0; });
      add(model, nearest_in_tokens(trained, model), fmt::format("the same training after a cut by {}", score), true);
    }
  }
  if (rank_of(model) < 7) {
    if (const ReportModel* source = source_of(report, model)) {
      const std::vector<std::string> chain = chain_above(report, model.name);
      add(model, source, std::ranges::find(chain, source->name) != chain.end() ? "the source" : "its teacher", false);
    }
    for (const ReportModel* other : beside(
             report, model, [](const ReportModel& each) { return each.role == "control" && each.training_tokens > 0; }))
      add(model, other, "the source trained on without a cut", false);
    for (const ReportModel* other : beside(
             report, model, [](const ReportModel& each) { return each.role == "student" || each.role == "distilled"; }))
      if (const std::vector<std::string> chain = chain_above(report, model.name);
          std::ranges::find(chain, other->name) == chain.end())
        add(model, other, same_size(*other, model) ? "another student" : "a student of another size",
            same_size(*other, model));
  } else {
    for (const ReportModel* other : beside(report, model, [](const ReportModel&) { return true; }))
      add(model, other, "another model", false);
  }
  if (cut != nullptr && cut->role != "control")
    for (const std::string& score : scores_of(report)) {
      if (cut->role == score) continue;
      const auto untrained =
          peers(*cut, [&](const ReportModel& other) { return other.role == score && other.training_tokens == 0; });
      add(*cut, nearest_in_tokens(untrained, *cut), fmt::format("a cut by {}", score), true);
    }
  return rows;
}

}  // namespace coppice
