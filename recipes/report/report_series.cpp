#include "recipes/report/report_series.h"

#include <algorithm>
#include <vector>

namespace coppice {

double value_of(const std::map<std::string, double>& line, const char* key) {
  const auto found = line.find(key);
  return found == line.end() ? kAbsent : found->second;
}

Points series(const ReportStage& stage, const char* key) {
  Points points;
  for (const auto& line : stage.metrics) {
    const double tokens = value_of(line, "tokens"), y = value_of(line, key);
    if (line.contains(key)) points.emplace_back(std::isnan(tokens) ? value_of(line, "step") : tokens, y);
  }
  return points;
}

Points finite_series(const ReportStage& stage, const char* key) {
  Points points = series(stage, key);
  std::erase_if(points, [](const auto& point) { return !std::isfinite(point.second); });
  return points;
}

Points training_loss(const ReportStage& stage) {
  const Points ce = series(stage, "ce");
  return ce.empty() ? series(stage, "loss") : ce;
}

void Range::add(double value) {
  if (!std::isfinite(value)) return;
  low = std::min(low, value);
  high = std::max(high, value);
}

void Range::add(const Points& points) {
  for (const auto& point : points) add(point.second);
}

void Range::add_without_spikes(const Points& points, double share) {
  std::vector<double> sorted;
  for (const auto& point : points)
    if (std::isfinite(point.second)) sorted.push_back(point.second);
  if (sorted.empty()) return;
  std::ranges::sort(sorted);
  add(sorted.front());
  add(sorted[static_cast<size_t>(static_cast<double>(sorted.size() - 1) * (1.0 - share))]);
}

double legend(Svg& svg, double x, double y, std::string_view css, std::string_view words) {
  svg.line(x, y - 4, x + 20, y - 4, css);
  svg.text(x + 26, y, words, "soft");
  return x + 26 + text_width(words, 11) + 22;
}

}  // namespace coppice
