#include "src/data/label_alignment.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr double kRounding = 1e-12;  // squares of what is 0 but for rounding: labels that are all the same
constexpr double kPrior = 5;         // a token that was seen this often counts half as much as the text as a whole

/// a(y, l) of the header, from pairs of neighbouring tokens: rows y of ids that follow, sorted.
class Associations {
 public:
  Associations(int64_t vocab_size, const std::vector<int32_t>& token, const std::vector<char>& first, const std::vector<int32_t>& label)
      : begin_(static_cast<size_t>(vocab_size) + 1), unseen_(static_cast<size_t>(vocab_size)), mean_(static_cast<size_t>(vocab_size)) {
    const auto vocab = static_cast<size_t>(vocab_size);
    std::vector<uint64_t> pairs;
    std::vector<double> share(vocab, 0.5), label_share(vocab, 0);  // of the text; of the labels
    double tokens = 0.5 * static_cast<double>(vocab), labels = 0;
    for (size_t i = 0; i < token.size(); ++i) {
      share[static_cast<size_t>(token[i])] += 1, tokens += 1;
      if (label[i] >= 0) label_share[static_cast<size_t>(label[i])] += 1, labels += 1;
      if (!first[i]) pairs.push_back(static_cast<uint64_t>(token[i - 1]) << 32 | static_cast<uint32_t>(token[i]));
    }
    for (double& value : share) value /= tokens;
    for (double& value : label_share) value /= std::max(labels, 1.0);
    std::sort(pairs.begin(), pairs.end());
    for (size_t y = 0, i = 0; y < vocab; ++y) {
      begin_[y] = follower_.size();
      const size_t row = i;
      while (i < pairs.size() && pairs[i] >> 32 == y) ++i;
      const double seen = static_cast<double>(i - row) + kPrior;
      unseen_[y] = mean_[y] = std::log(kPrior / seen);
      for (size_t j = row; j < i;) {
        const auto id = static_cast<uint32_t>(pairs[j]);
        size_t stop = j;
        while (stop < i && static_cast<uint32_t>(pairs[stop]) == id) ++stop;
        follower_.push_back(id);
        value_.push_back(std::log((static_cast<double>(stop - j) / share[id] + kPrior) / seen));
        mean_[y] += label_share[id] * (value_.back() - unseen_[y]);
        j = stop;
      }
    }
    begin_[vocab] = follower_.size();
  }

  double operator()(int32_t y, int32_t l) const {
    const auto row = static_cast<size_t>(y);
    const auto first = follower_.begin() + static_cast<std::ptrdiff_t>(begin_[row]), last = follower_.begin() + static_cast<std::ptrdiff_t>(begin_[row + 1]);
    const auto found = std::lower_bound(first, last, static_cast<uint32_t>(l));
    const double value = found != last && *found == static_cast<uint32_t>(l) ? value_[static_cast<size_t>(found - follower_.begin())] : unseen_[row];
    return value - mean_[row];
  }

 private:
  std::vector<size_t> begin_;  // of a row in follower_ and value_
  std::vector<uint32_t> follower_;
  std::vector<double> value_, unseen_, mean_;  // log ratio of a pair; of a pair not seen; of the labels on average
};

}  // namespace

std::string LabelAlignment::complaint() const {
  const bool before = place == Place::one_before;
  return fmt::format(
      "stand one place {} their tokens: they fit the text better moved by one (z = {:.1f}, right ones pass {:.1f} once in {:.0e} times; {} labels). The label "
      "of "
      "token i is the choice for token i + 1: move them {} by one, or make them again",
      before ? "before" : "behind", before ? z_before : z_behind, threshold, 2 / std::exp(-threshold * threshold / 2), labels, before ? "on" : "back");
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

LabelAlignment LabelSample::judge(double error_rate) const {
  const Associations fits(vocab_size_, token_, first_, label_);
  const auto evidence_for = [&](int shift) {
    std::vector<double> sum(static_cast<size_t>(vocab_size_), 0), count(sum.size(), 0);
    for (size_t i = 1; i + 1 < token_.size(); ++i) {
      if (label_[i] < 0 || first_[i] || first_[i + 1]) continue;  // both shifts see the same labels: those with a neighbour on either side
      if (shift < 0 && label_[i] == token_[i]) continue;
      const auto behind = static_cast<size_t>(token_[i]);
      sum[behind] += fits(token_[i + static_cast<size_t>(shift)], label_[i]) - fits(token_[i], label_[i]);
      count[behind] += 1;
    }
    double total = 0, squares = 0;
    for (size_t c = 0; c < sum.size(); ++c) {
      if (count[c] == 0) continue;
      total += sum[c] / std::sqrt(count[c]);
      squares += sum[c] * sum[c] / count[c];
    }
    return squares > kRounding ? total / std::sqrt(squares) : 0.0;
  };
  LabelAlignment found{.z_before = evidence_for(1), .z_behind = evidence_for(-1), .threshold = std::sqrt(2 * std::log(2 / error_rate)), .labels = labels_};
  if (std::max(found.z_before, found.z_behind) > found.threshold) {
    found.place = found.z_before > found.z_behind ? LabelAlignment::Place::one_before : LabelAlignment::Place::one_behind;
  } else if (std::max(found.z_before, found.z_behind) < -found.threshold) {
    found.place = LabelAlignment::Place::here;
  }
  return found;
}

}  // namespace coppice
