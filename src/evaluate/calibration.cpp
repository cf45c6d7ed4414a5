#include "src/evaluate/calibration.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr double kStep = kInverseTemperatureStep;

/// Hermite's polynomial through two points a step apart, at `t` steps from the first.
double between(const TemperaturePoint& a, const TemperaturePoint& b, double t) {
  const double t2 = t * t, t3 = t2 * t, t4 = t3 * t, t5 = t4 * t;
  return a.ce * (1 - 10 * t3 + 15 * t4 - 6 * t5) + b.ce * (10 * t3 - 15 * t4 + 6 * t5) +
         kStep * (a.slope * (t - 6 * t3 + 8 * t4 - 3 * t5) + b.slope * (7 * t4 - 4 * t3 - 3 * t5)) +
         kStep * kStep * (a.curvature * (t2 - 3 * t3 + 3 * t4 - t5) + b.curvature * (t3 - 2 * t4 + t5)) / 2;
}

}  // namespace

double expected_calibration_error(const CalibrationSums& sums) {
  double gaps = 0;
  for (const ConfidenceBin& bin : sums.bins) gaps += std::abs(static_cast<double>(bin.correct) - bin.confidence);
  return gaps / static_cast<double>(sums.num_live);
}

double loss_at(const CalibrationSums& sums, double b) {
  COPPICE_CHECK(b >= inverse_temperature_of(0) && b <= inverse_temperature_of(kTemperaturePoints - 1),
                "an inverse temperature beside the curve");
  const double steps = b / kStep - 1;
  const size_t point = std::min(static_cast<size_t>(steps), kTemperaturePoints - 2);
  return between(sums.curve[point], sums.curve[point + 1], steps - static_cast<double>(point)) /
         static_cast<double>(sums.num_live);
}

double fit_inverse_temperature(const CalibrationSums& sums) {
  const auto rises = std::ranges::find_if(sums.curve, [](const TemperaturePoint& point) { return point.slope >= 0; });
  if (rises == sums.curve.begin()) return inverse_temperature_of(0);
  if (rises == sums.curve.end()) return inverse_temperature_of(kTemperaturePoints - 1);
  constexpr double kShare = std::numbers::phi - 1;
  constexpr int kRounds = 50;  // 0.618^50 of a step: 4e-12
  double high = inverse_temperature_of(static_cast<size_t>(rises - sums.curve.begin())), low = high - kStep;
  for (int round = 0; round < kRounds; ++round) {
    const double inner_low = high - kShare * (high - low), inner_high = low + kShare * (high - low);
    if (loss_at(sums, inner_low) < loss_at(sums, inner_high))
      high = inner_high;
    else
      low = inner_low;
  }
  return (low + high) / 2;
}

std::optional<Calibration> calibrate(const CalibrationSums& one, const CalibrationSums& other) {
  if (one.num_live == 0 || other.num_live == 0) return std::nullopt;
  CalibrationSums all = one;
  all.add(other);
  const auto of_one = static_cast<double>(one.num_live), of_other = static_cast<double>(other.num_live);
  return Calibration{.ece = expected_calibration_error(all),
                     .temperature = 1 / fit_inverse_temperature(all),
                     .loss = (of_one * loss_at(one, fit_inverse_temperature(other)) +
                              of_other * loss_at(other, fit_inverse_temperature(one))) /
                             (of_one + of_other)};
}

}  // namespace coppice
