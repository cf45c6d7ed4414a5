#include "src/data/label_alignment.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <utility>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr size_t kBlock = 8;        // tokens whose evidence is one observation
constexpr double kSpread = 1.5;     // of z, more than was measured
constexpr double kRightHere = 0.2;  // share of right labels that speaks for itself

}  // namespace

std::string LabelAlignment::complaint() const {
  const bool before = place == Place::one_before;
  return fmt::format(
      "stand one place {} their tokens: they follow from the token {} rather than from their own (z = {:.1f}, where "
      "right ones pass {:.1f} once in a million "
      "times; {} labels). The label of token i is the choice for token i + 1: move them {} by one, or make them again",
      before ? "before" : "behind", before ? "after" : "before", before ? z_before : z_behind, threshold, labels,
      before ? "on" : "back");
}

void LabelSample::add(std::span<const int64_t> token, std::span<const int64_t> label) {
  COPPICE_CHECK(token.size() == label.size(), "a label a token");
  for (size_t i = 0; i < token.size(); ++i) {
    token_.push_back(static_cast<int32_t>(token[i]));
    label_.push_back(label[i] < 0 ? -1 : static_cast<int32_t>(label[i]));
    first_.push_back(i == 0);
    labels_ += label[i] >= 0;
  }
}

void LabelSample::clear() {
  token_.clear();
  label_.clear();
  first_.clear();
  labels_ = 0;
}

/// Labels with a neighbour on either side in their run: the same for all shifts.
std::vector<size_t> LabelSample::judged() const {
  std::vector<size_t> places;
  for (size_t i = 1; i + 1 < token_.size(); ++i)
    if (label_[i] >= 0 && !first_[i] && !first_[i + 1]) places.push_back(i);
  return places;
}

/// log p(l_i | x_{i + shift}) of every judged label.
std::vector<double> LabelSample::log_likelihood(const std::vector<size_t>& judged, int shift) const {
  std::unordered_map<int32_t, uint32_t> count;
  std::vector<std::pair<uint64_t, size_t>> pairs;  // token and label, number among the judged
  for (size_t j = 0; j < judged.size(); ++j) {
    const int32_t label = label_[judged[j]], token = token_[judged[j] + static_cast<size_t>(shift)];
    ++count[label];
    pairs.emplace_back(static_cast<uint64_t>(token) << 32 | static_cast<uint32_t>(label), j);
  }
  std::ranges::sort(pairs);
  const double others = static_cast<double>(judged.size()) - 1, ids = static_cast<double>(count.size());
  std::vector<double> log_p(judged.size());
  for (size_t row = 0; row < pairs.size();) {  // the labels behind one token
    size_t row_end = row;
    while (row_end < pairs.size() && pairs[row_end].first >> 32 == pairs[row].first >> 32) ++row_end;
    const auto in_row = static_cast<double>(row_end - row - 1);  // besides the one that is judged
    for (size_t equal = row; equal < row_end;) {
      size_t equal_end = equal;
      while (equal_end < row_end && pairs[equal_end].first == pairs[equal].first) ++equal_end;
      const double share = (count[static_cast<int32_t>(pairs[equal].first)] - 0.5) / (others + 0.5 * ids);
      const double value = std::log((static_cast<double>(equal_end - equal - 1) + share) / (in_row + 1));
      for (; equal < equal_end; ++equal) log_p[pairs[equal].second] = value;
    }
    row = row_end;
  }
  return log_p;
}

double LabelSample::evidence_for(const std::vector<size_t>& judged, const std::vector<double>& here, int shift) const {
  const std::vector<double> there = log_likelihood(judged, shift);
  double total = 0, squares = 0;
  for (size_t begin = 0; begin < judged.size(); begin += kBlock) {
    double block = 0;
    for (size_t j = begin; j < std::min(judged.size(), begin + kBlock); ++j) {
      const size_t i = judged[j];
      if (label_[i] != token_[i] && label_[i] != token_[i + static_cast<size_t>(shift)]) block += there[j] - here[j];
    }
    total += block;
    squares += block * block;
  }
  return squares > 0 ? total / std::sqrt(squares) : 0.0;
}

bool LabelSample::is_right_here(const std::vector<size_t>& judged, int shift) const {
  size_t compared = 0, here = 0, there = 0;
  for (const size_t i : judged) {
    if (i + 2 >= token_.size() || first_[i + 2]) continue;
    ++compared;
    here += label_[i] == token_[i + 1];
    there += label_[i] == token_[i + 1 + static_cast<size_t>(shift)];
  }
  return static_cast<double>(here) > kRightHere * static_cast<double>(compared) && here > 2 * there;
}

LabelAlignment LabelSample::judge(double error_rate) const {
  const std::vector<size_t> places = judged();
  const std::vector<double> here = log_likelihood(places, 0);
  LabelAlignment found{.z_before = evidence_for(places, here, 1),
                       .z_behind = evidence_for(places, here, -1),
                       .threshold = kSpread * std::sqrt(2 * std::log(2 / error_rate)),
                       .labels = labels_};
  const bool before = found.z_before > found.z_behind;
  if (const double most = std::max(found.z_before, found.z_behind); most < -found.threshold) {
    found.place = LabelAlignment::Place::here;
  } else if (most > found.threshold && !is_right_here(places, before ? 1 : -1)) {
    found.place = before ? LabelAlignment::Place::one_before : LabelAlignment::Place::one_behind;
  }
  return found;
}

}  // namespace coppice
