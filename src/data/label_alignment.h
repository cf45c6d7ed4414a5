// Do labels stand at their tokens, or one place before or behind them? A label is the choice for the token that
// follows; moved, it is the choice for a neighbour. A weak teacher is seldom right, so how often it is right says
// little. But whatever it has learned, its choice follows from the token that it has just read: labels are likelier
// given that token than given its neighbour, and moved ones are likelier given the neighbour.
//   p(l | y)  how often label l stands behind token y in the rest of the sample: (n(y, l) + q(l)) / (n(y) + 1), q(l)
//   its share of all labels d_i       log p(l_i | x_{i+s}) - log p(l_i | x_i): above 0 where label l_i follows rather
//   from the neighbour s = -1 or +1 z_s       sum_b B_b / sqrt(sum_b B_b^2), B_b = sum of d_i over 8 tokens side by
//   side
// For independent symmetric B_b P(z > t) <= exp(-t^2 / 2), however they are distributed (Efron 1969). The blocks share
// one table: where labels have nothing to do with the text the spread of z is 0.8 to 1.3 instead of 1, so that the
// threshold is 1.5 times what this asks for. Labels that repeat one of the two tokens are left out: that is what fresh
// tied weights answer, and what a good teacher's labels look like from the neighbour's place. Where every second token
// says nothing (a comma between numbers), what follows from the neighbour may be right: labels that name a fifth of the
// next tokens where they stand, and twice as many as moved, are left alone. docs/labels.md has rates.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace coppice {

inline constexpr double kAlignmentErrorRate = 1e-6;    // of a label stage and a reader, over all domains
inline constexpr uint64_t kAlignmentTokens = 131'072;  // labels of a domain that are looked at

struct LabelAlignment {
  enum class Place { here, unknown, one_before, one_behind };
  Place place =
      Place::unknown;  // one_before: label i is the choice that belongs to token i + 1; one_behind: to token i - 1
  double z_before = 0,
         z_behind =
             0;  // evidence for either: above `threshold` it is so, below -threshold of both the labels stand right
  double threshold = 0;
  uint64_t labels = 0;  // that were looked at
  bool moved() const { return place == Place::one_before || place == Place::one_behind; }
  /// `stand one place ...`, for a moved one: what follows the name of the labels in a message.
  std::string complaint() const;
};

/// A sample of one domain's labels and what it says about their place. Ids are below 2^31; a label below 0 is none.
class LabelSample {
 public:
  /// Neighbouring tokens of one document; label[i] is said to be the choice for the token behind token[i].
  void add(std::span<const int64_t> token, std::span<const int64_t> label);
  uint64_t labels() const { return labels_; }
  /// Enough labels, or so few of them that the text between them is long enough.
  bool is_full() const { return labels_ >= kAlignmentTokens || token_.size() >= 8 * kAlignmentTokens; }
  void clear();
  /// `error_rate`: with at most which probability labels that stand right are taken for moved ones.
  LabelAlignment judge(double error_rate) const;

 private:
  std::vector<size_t> judged() const;
  std::vector<double> log_likelihood(const std::vector<size_t>& judged, int shift) const;
  double evidence_for(const std::vector<size_t>& judged, const std::vector<double>& here, int shift) const;
  bool is_right_here(const std::vector<size_t>& judged, int shift) const;

  std::vector<int32_t> token_, label_;
  std::vector<char> first_;  // of its run
  uint64_t labels_ = 0;
};

}  // namespace coppice
