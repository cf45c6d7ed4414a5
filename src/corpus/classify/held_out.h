// What documents that were not trained on say of a classifier: scores become probabilities by Platt's two parameters
// (Platt 1999; targets and Newton's method of Lin, Lin and Weng 2007), and these are held against the truth.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace coppice {

/// One document: what the classifier gives it, and whether it is one of the positives.
struct HeldOutScore {
  double score = 0;
  bool positive = false;
};

/// p = 1 / (1 + exp(-(slope score + offset))).
struct Platt {
  float slope = 1, offset = 0;
  double operator()(double score) const;
};
/// The most likely two, targets being (positives + 1) / (positives + 2) and 1 / (negatives + 2).
Platt fit_platt(std::span<const HeldOutScore> scores);

/// Share of pairs of a positive and a negative in which the positive has the higher score; equal scores are half a
/// pair. Both must be there.
double area_under_curve(std::span<const HeldOutScore> scores);

inline constexpr size_t kReliabilityBins = 10, kPrecisionRows = 20;

/// Documents whose probability lies in [i / 10, (i + 1) / 10), the last one with 1.
struct ReliabilityBin {
  float documents = 0, mean_probability = 0, positive_share = 0;  // 0 where there is none
};
/// Documents of at least this probability: i / 20.
struct PrecisionRow {
  float threshold = 0, kept_share = 0, precision = 0, recall = 0;  // precision 0 where none is kept
};

struct HeldOutReport {
  uint64_t positives = 0, negatives = 0;
  float auc = 0;
  std::array<ReliabilityBin, kReliabilityBins> reliability;
  std::array<PrecisionRow, kPrecisionRows> precision;
};
HeldOutReport held_out_report(std::span<const HeldOutScore> scores, const Platt& platt);

}  // namespace coppice
