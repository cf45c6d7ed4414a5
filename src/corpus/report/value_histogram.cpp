#include "src/corpus/report/value_histogram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace coppice {
namespace {

constexpr double kTail = 0.005;  // of the values, at either end
constexpr double kWidth = 430, kHeight = 110, kBottom = 20, kTop = 16;

double position(const ValueHistogram& of, double value) {  // 0 to 1
  const double part = of.is_log ? std::log(std::max(value, of.low) / of.low) / std::log(of.high / of.low)
                                : (value - of.low) / (of.high - of.low);
  return std::clamp(part, 0.0, 1.0);
}

double value_at(const ValueHistogram& of, double part) {
  return of.is_log ? of.low * std::pow(of.high / of.low, part) : of.low + part * (of.high - of.low);
}

}  // namespace

ValueHistogram value_histogram(std::span<const float> values, const Rule& rule) {
  std::vector<float> sorted;
  std::ranges::copy_if(values, std::back_inserter(sorted), [](float value) { return std::isfinite(value); });
  ValueHistogram of{.measured = sorted.size()};
  if (sorted.empty()) return of;
  std::ranges::sort(sorted);
  const auto tail = static_cast<size_t>(kTail * static_cast<double>(sorted.size()));
  of.low = sorted[tail];
  of.high = sorted[sorted.size() - 1 - tail];
  for (const double limit : {rule.least, rule.most})
    if (std::isfinite(limit)) of.low = std::min(of.low, limit), of.high = std::max(of.high, limit);
  if (of.high <= of.low) of.high = of.low + std::max(1.0, std::abs(of.low));
  of.is_log = of.low > 0 && of.high >= 100 * of.low;
  for (const float value : sorted)
    ++of.counts[std::min(static_cast<size_t>(position(of, value) * static_cast<double>(of.counts.size())),
                         of.counts.size() - 1)];
  return of;
}

Svg histogram_chart(const ValueHistogram& histogram, const Rule& rule) {
  Svg svg(kWidth, kHeight);
  const double bottom = kHeight - kBottom, height = bottom - kTop;
  const double bar = kWidth / static_cast<double>(histogram.counts.size());
  const double most = std::log1p(static_cast<double>(std::ranges::max(histogram.counts)));
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    if (histogram.counts[i] == 0) continue;
    const double share = std::log1p(static_cast<double>(histogram.counts[i])) / most;
    const double middle =
        value_at(histogram, (static_cast<double>(i) + 0.5) / static_cast<double>(histogram.counts.size()));
    svg.rect(static_cast<double>(i) * bar + 0.5, bottom - share * height, bar - 1, share * height,
             rule.drops(middle) ? "fcompare" : "fcut");
  }
  svg.line(0, bottom, kWidth, bottom, "frame");
  svg.text(0, bottom + 14, number_text(histogram.low), "soft");
  svg.text(kWidth, bottom + 14, number_text(histogram.high), "soft", "end");
  if (histogram.is_log) svg.text(kWidth / 2, bottom + 14, "log scale", "soft", "middle");
  for (const double limit : {rule.least, rule.most}) {
    if (!std::isfinite(limit)) continue;
    const double x = std::clamp(position(histogram, limit) * kWidth, 0.5, kWidth - 0.5);
    svg.line(x, kTop - 4, x, bottom, "ink");
    const char* anchor = x < 40 ? "start" : x > kWidth - 40 ? "end" : "middle";
    svg.text(x, kTop - 6, number_text(limit), "strong", anchor);
  }
  return svg;
}

}  // namespace coppice
