// Series and ranges that the report's drawings share.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <string_view>

#include "recipes/report/report.h"
#include "src/base/svg.h"

namespace coppice {

inline constexpr size_t kPanelPoints = 240;  // a line of a small panel

/// NaN when the key is absent.
double value_of(const std::map<std::string, double>& line, const char* key);
/// The series of one key against tokens (steps where tokens are absent); lines without the key are left out.
Points series(const ReportStage& stage, const char* key);
/// The same without what is not finite: held-out losses are sparse, a line through the good ones says more than dots.
Points finite_series(const ReportStage& stage, const char* key);
/// True-label cross-entropy where it is logged, so that stages with and without labels share one scale.
Points training_loss(const ReportStage& stage);

/// The finite values seen so far.
struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double value);
  void add(const Points& points);
  /// All but the highest `share` of the points: a spike may leave the picture.
  void add_without_spikes(const Points& points, double share);
};

/// A stroke and its words at x, as one entry of a legend; returns where the next one goes.
double legend(Svg& svg, double x, double y, std::string_view css, std::string_view words);

}  // namespace coppice
