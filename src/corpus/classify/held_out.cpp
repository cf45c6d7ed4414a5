#include "src/corpus/classify/held_out.h"

#include <algorithm>
#include <cmath>

#include "src/base/errors.h"

namespace coppice {
namespace {

uint64_t num_positives(std::span<const HeldOutScore> scores) {
  return static_cast<uint64_t>(std::ranges::count(scores, true, &HeldOutScore::positive));
}

/// Negative log-likelihood of the targets.
double loss_of(std::span<const HeldOutScore> scores, double high, double low, double slope, double offset) {
  double sum = 0;
  for (const auto& [score, positive] : scores) {
    const double x = slope * score + offset, target = positive ? high : low;
    sum += std::max(x, 0.0) - target * x + std::log1p(std::exp(-std::abs(x)));
  }
  return sum;
}

}  // namespace

double Platt::operator()(double score) const { return 1 / (1 + std::exp(-(double{slope} * score + double{offset}))); }

Platt fit_platt(std::span<const HeldOutScore> scores) {
  const auto positives = static_cast<double>(num_positives(scores));
  const double negatives = static_cast<double>(scores.size()) - positives;
  const double high = (positives + 1) / (positives + 2), low = 1 / (negatives + 2);
  double slope = 0, offset = std::log((positives + 1) / (negatives + 1));
  double loss = loss_of(scores, high, low, slope, offset);
  constexpr int kMaxSteps = 100;
  constexpr double kRidge = 1e-12, kSmallest = 1e-10;
  for (int step = 0; step < kMaxSteps; ++step) {
    double g_slope = 0, g_offset = 0, h_slope = kRidge, h_both = 0, h_offset = kRidge;
    for (const auto& [score, positive] : scores) {
      const double p = 1 / (1 + std::exp(-(slope * score + offset)));
      const double gradient = p - (positive ? high : low), curvature = p * (1 - p);
      g_slope += gradient * score;
      g_offset += gradient;
      h_slope += curvature * score * score;
      h_both += curvature * score;
      h_offset += curvature;
    }
    const double determinant = h_slope * h_offset - h_both * h_both;
    const double d_slope = (h_both * g_offset - h_offset * g_slope) / determinant;
    const double d_offset = (h_both * g_slope - h_slope * g_offset) / determinant;
    double size = 1;  // halved until the loss falls
    double next = loss_of(scores, high, low, slope + d_slope, offset + d_offset);
    while (!(next <= loss) && size > kSmallest) {
      size /= 2;
      next = loss_of(scores, high, low, slope + size * d_slope, offset + size * d_offset);
    }
    if (!(next < loss)) break;
    slope += size * d_slope;
    offset += size * d_offset;
    loss = next;
  }
  return {static_cast<float>(slope), static_cast<float>(offset)};
}

double area_under_curve(std::span<const HeldOutScore> scores) {
  std::vector<HeldOutScore> sorted(scores.begin(), scores.end());
  std::ranges::sort(sorted, {}, &HeldOutScore::score);
  const uint64_t positives = num_positives(scores), negatives = scores.size() - positives;
  COPPICE_CHECK(positives > 0 && negatives > 0, "a curve needs documents of both kinds");
  uint64_t below = 0, half_pairs = 0;
  for (size_t begin = 0, end = 0; begin < sorted.size(); begin = end) {
    uint64_t equal_positives = 0;
    for (end = begin; end < sorted.size() && sorted[end].score == sorted[begin].score; ++end)
      equal_positives += sorted[end].positive;
    const uint64_t equal_negatives = end - begin - equal_positives;
    half_pairs += equal_positives * (2 * below + equal_negatives);
    below += equal_negatives;
  }
  return static_cast<double>(half_pairs) / 2 / static_cast<double>(positives) / static_cast<double>(negatives);
}

HeldOutReport held_out_report(std::span<const HeldOutScore> scores, const Platt& platt) {
  HeldOutReport report;
  report.positives = num_positives(scores);
  report.negatives = scores.size() - report.positives;
  report.auc = static_cast<float>(area_under_curve(scores));
  struct Count {
    uint64_t documents = 0, positives = 0;
    double probability = 0;
  };
  std::array<Count, kReliabilityBins> bins;
  std::array<Count, kPrecisionRows> rows;
  for (const auto& [score, positive] : scores) {
    const double p = platt(score);
    Count& bin = bins[std::min(static_cast<size_t>(p * kReliabilityBins), kReliabilityBins - 1)];
    ++bin.documents;
    bin.positives += positive;
    bin.probability += p;
    for (size_t i = 0; i < kPrecisionRows && p >= static_cast<double>(i) / kPrecisionRows; ++i) {
      ++rows[i].documents;
      rows[i].positives += positive;
    }
  }
  const auto share = [](double part, uint64_t whole) {
    return whole == 0 ? 0.0F : static_cast<float>(part / static_cast<double>(whole));
  };
  for (size_t i = 0; i < bins.size(); ++i)
    report.reliability[i] = {static_cast<float>(bins[i].documents), share(bins[i].probability, bins[i].documents),
                             share(static_cast<double>(bins[i].positives), bins[i].documents)};
  for (size_t i = 0; i < rows.size(); ++i)
    report.precision[i] = {static_cast<float>(i) / kPrecisionRows,
                           share(static_cast<double>(rows[i].documents), scores.size()),
                           share(static_cast<double>(rows[i].positives), rows[i].documents),
                           share(static_cast<double>(rows[i].positives), report.positives)};
  return report;
}

}  // namespace coppice
