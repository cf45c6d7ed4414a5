// The values of a rule, counted: what a threshold cuts off.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "src/base/svg.h"
#include "src/corpus/step.h"

namespace coppice {

struct ValueHistogram {
  bool is_log = false;       // bins of equal ratios
  double low = 0, high = 1;  // what lies outside is in the first or last bin
  std::array<uint64_t, 40> counts{};
  uint64_t measured = 0;
};

/// Over the middle 99% of the values, widened to the thresholds; by ratios where all of them are positive and the
/// largest is a hundred times the smallest. NaN is left out.
ValueHistogram value_histogram(std::span<const float> values, const Rule& rule);
/// Bars by the logarithm of their counts; what the thresholds let go is of another colour.
Svg histogram_chart(const ValueHistogram& histogram, const Rule& rule);

}  // namespace coppice
