// The loss of rows at several temperatures at once. Torch-free.
#pragma once

#include <array>
#include <cstddef>

namespace coppice {

/// Points of a temperature curve: inverse temperatures b = 1/8, 2/8 .. 2.
inline constexpr size_t kTemperaturePoints = 16;
inline constexpr double kInverseTemperatureStep = 0.125;
constexpr double inverse_temperature_of(size_t point) {
  return kInverseTemperatureStep * static_cast<double>(point + 1);
}

/// Cross-entropy logsumexp(b z) - b z[true] at one b, in nats summed over rows, and its derivatives by b: what the
/// model expects of z less what came, and the variance of z. Both derivatives are of a convex function.
struct TemperaturePoint {
  double ce = 0, slope = 0, curvature = 0;
};
using TemperatureCurve = std::array<TemperaturePoint, kTemperaturePoints>;

}  // namespace coppice
