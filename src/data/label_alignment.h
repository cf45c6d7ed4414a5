// Do labels stand at their tokens, or one place before or behind them? A label is the choice for the token that follows; moved, it is the choice for a
// neighbour. A weak teacher is seldom right, so how often it is right says little; but what it chooses follows from the token it has just read.
//   a(y, l)  how much more often token l follows token y in this text than anywhere, a log ratio, less its mean over all labels l of the sample
//   d_i      a(x_{i+s}, l_i) - a(x_i, l_i): above 0 where label l_i fits the text better moved by s = -1 or +1
//   z_s      sum_c X_c / sqrt(sum_c X_c^2), X_c = sum of d_i over the n_c labels behind token c, by sqrt(n_c)
// A teacher that has learned nothing still answers one token with one label: its labels behind one token are one observation, X_c, and whether it is above or
// below 0 is chance. For independent symmetric X_c P(z > t) <= exp(-t^2 / 2) however they are distributed (Efron 1969), which gives the error rate; a teacher
// that has learned anything lies far below 0. Labels that repeat the token just read are left out for s = -1: that is what fresh tied weights answer, and what
// a good teacher's moved labels look like. docs/labels.md has rates.
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
  Place place = Place::unknown;       // one_before: label i is the choice that belongs to token i + 1; one_behind: to token i - 1
  double z_before = 0, z_behind = 0;  // evidence for either: above `threshold` it is so, below -threshold of both the labels stand right
  double threshold = 0;
  uint64_t labels = 0;  // that were looked at
  bool moved() const { return place == Place::one_before || place == Place::one_behind; }
  /// `stand one place ...`, for a moved one: what follows the name of the labels in a message.
  std::string complaint() const;
};

/// A sample of one domain's labels and what the text says about their place. Ids lie in [0, vocab_size); a label below 0 is none.
class LabelSample {
 public:
  explicit LabelSample(int64_t vocab_size) : vocab_size_(vocab_size) {}
  /// Neighbouring tokens of one document; label[i] is said to be the choice for the token behind token[i].
  void add(std::span<const int64_t> token, std::span<const int64_t> label);
  uint64_t labels() const { return labels_; }
  /// Enough labels, or so few of them that the text between them is long enough.
  bool is_full() const { return labels_ >= kAlignmentTokens || token_.size() >= 8 * kAlignmentTokens; }
  void clear();
  /// `error_rate`: with at most which probability labels that stand right are taken for moved ones.
  LabelAlignment judge(double error_rate) const;

 private:
  int64_t vocab_size_;
  std::vector<int32_t> token_, label_;
  std::vector<char> first_;  // of its run
  uint64_t labels_ = 0;
};

}  // namespace coppice
