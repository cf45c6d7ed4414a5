// Drawings of the mask stage: row by row over the steps, its health as a whole, what a cut would cost and what
// other scores would keep.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "recipes/report/report_charts.h"
#include "recipes/report/report_series.h"

namespace coppice {
namespace {

constexpr double kLeft = 40, kWidth = 258, kPitch = 310, kHeight = 140, kAxis = 56;

/// One line of a panel: a key of the stage's metrics against the steps.
struct Line {
  const char *key, *css, *words;
};

Points by_step(const ReportStage& stage, const char* key) {
  Points points;
  for (const auto& line : stage.metrics)
    if (std::isfinite(value_of(line, key))) points.emplace_back(value_of(line, "step"), value_of(line, key));
  return points;
}

/// A line across a panel, at what a choice by chance would give.
void draw_chance(Svg& svg, double x, double y, const Axis& axis, double chance) {
  if (!std::isfinite(chance)) return;
  const double at = axis.place(chance, y + kHeight, y);
  svg.line(x, at, x + kWidth, at, "chance");
}

/// A panel of lines under its title and legend, from zero upwards. False, and nothing drawn, when the stage has none of
/// them.
bool draw_panel(Svg& svg, const ReportStage& stage, double x, double y, const std::string& title,
                const std::vector<Line>& lines, double chance) {
  std::vector<ChartLine> drawn;
  Range range;
  range.add(0.0);
  double last = 1, legend_x = x;
  for (const Line& line : lines) {
    const Points points = by_step(stage, line.key);
    if (points.empty()) continue;
    range.add(points);
    last = std::max(last, points.back().first);
    drawn.push_back({.points = thin_out(points, kPanelPoints), .css = line.css, .label = ""});
    if (lines.size() > 1) legend_x = legend(svg, legend_x, y - 8, line.css, line.words);
  }
  if (drawn.empty()) return false;
  range.add(chance);
  const Axis y_axis = round_axis(0, std::max(range.high, 1e-3), 4);
  svg.text(x, y - 26, title, "strong");
  draw_chart(svg, {.x = x,
                   .y = y,
                   .width = kWidth,
                   .height = kHeight,
                   .x_axis = round_axis(0, last, 4, true),
                   .y_axis = y_axis,
                   .title = "",
                   .x_label = "step",
                   .y_label = "",
                   .lines = drawn});
  draw_chance(svg, x, y, y_axis, chance);
  return true;
}

size_t depth_of(size_t layer, size_t num_layers) {
  return num_layers < 2 ? 0 : layer * (kNumDepthColours - 1) / (num_layers - 1);
}

void draw_layer_legend(Svg& svg, double y, size_t num_layers) {
  svg.text(0, y, "layer", "soft");
  double x = 34;
  if (num_layers <= kNumDepthColours) {
    for (size_t layer = 0; layer < num_layers; ++layer)
      x = legend(svg, x, y, fmt::format("d{} thick", depth_of(layer, num_layers)), std::to_string(layer));
    return;
  }
  svg.text(x, y, "0", "soft");
  for (int i = 0; i < kNumDepthColours; ++i) svg.rect(x + 12 + 14 * i, y - 9, 14, 10, fmt::format("fd{}", i));
  svg.text(x + 12 + 14 * kNumDepthColours + 6, y, std::to_string(num_layers - 1), "soft");
}

/// Kept share, sharpness and churn, a line each row.
void draw_layers(Svg& svg, const ReportMasks& masks, double y, double chance) {
  const std::pair<std::string, std::vector<double> ReportMaskLayer::*> measures[] = {
      {fmt::format("kept share (sum of the mask / {}s)", masks.unit), &ReportMaskLayer::kept_share},
      {"sharpness (1 = fully decided)", &ReportMaskLayer::sharpness},
      {fmt::format("churn (share of kept {}s exchanged)", masks.unit), &ReportMaskLayer::churn}};
  double left = kLeft;
  for (const auto& [title, measure] : measures) {
    Range range;
    range.add(0.0);
    if (measure != &ReportMaskLayer::churn) range.add(1.0);
    std::vector<ChartLine> lines;
    for (size_t layer = 0; layer < masks.layers.size(); ++layer) {
      Points points;
      const std::vector<double>& values = masks.layers[layer].*measure;
      for (size_t i = 0; i < std::min(values.size(), masks.step.size()); ++i)
        points.emplace_back(masks.step[i], values[i]);
      range.add(points);
      lines.push_back({.points = points.size() > kPanelPoints ? thin_out(points, kPanelPoints) : points,
                       .css = fmt::format("d{} thick", depth_of(layer, masks.layers.size())),
                       .label = ""});
    }
    const Axis y_axis = round_axis(range.low, std::max(range.high, 1e-3), 4);
    draw_chart(svg, {.x = left,
                     .y = y,
                     .width = kWidth,
                     .height = kHeight,
                     .x_axis = round_axis(0, masks.step.back(), 4, true),
                     .y_axis = y_axis,
                     .title = fit_text(title, 11.5, kWidth + 24),
                     .x_label = "step",
                     .y_label = "",
                     .lines = lines});
    if (measure == &ReportMaskLayer::kept_share) draw_chance(svg, left, y, y_axis, chance);
    left += kPitch;
  }
}

/// The mask as a whole: how undecided it is, what a cut would throw away, what other scores would also keep. False when
/// the stage logs none of it.
bool draw_health(Svg& svg, const ReportStage& stage, const std::string& unit, double y, double chance) {
  double left = kLeft;
  const auto panel = [&](const std::string& title, const std::vector<Line>& lines, double line_at) {
    if (draw_panel(svg, stage, left, y, title, lines, line_at)) left += kPitch;
  };
  panel(fmt::format("entropy, nats a kept {} (0 = decided)", unit), {{"entropy", "s0 thick", ""}}, kAbsent);
  panel("share of the budget",
        {{"saturated_share", "s2 thick", "at 1 (saturated)"}, {"outside_share", "s1 thick", "outside the cut"}},
        kAbsent);
  panel(fmt::format("kept {}s that a score would keep too", unit),
        {{"overlap_activation", "s0 thick", "activation"},
         {"overlap_magnitude", "s1 thick", "magnitude"},
         {"overlap_random", "s3 thick", "random"}},
        chance);
  return left > kLeft;
}

/// Held-out loss over the steps under the soft mask, the learned cut and a random one.
bool draw_losses(Svg& svg, const ReportStage& stage, double y) {
  std::vector<ChartLine> lines;
  Range range;
  double last = 1;
  for (const Line& line : {Line{"heldout_random_loss", "s1 thick", "random cut"},
                           {"heldout_hard_loss", "s2 thick", "learned cut"},
                           {"heldout_loss", "s0 thick", "soft mask"}}) {
    const Points points = by_step(stage, line.key);
    if (points.empty()) continue;
    range.add(points);
    last = std::max(last, points.back().first);
    lines.push_back(
        {.points = thin_out(points, kPanelPoints), .css = line.css, .label = line.words, .dots = points.size() <= 60});
  }
  if (lines.empty()) return false;
  draw_chart(svg, {.x = kLeft,
                   .y = y,
                   .width = 390,
                   .height = kHeight,
                   .x_axis = round_axis(0, last, 5, true),
                   .y_axis = round_axis(range.low, range.high, 4),
                   .title = "held-out loss, nats a token, if the cut were made now",
                   .x_label = "step",
                   .y_label = "",
                   .end_labels = true,
                   .end_label_width = 90,
                   .lines = lines});
  return true;
}

struct Bar {
  std::string name;
  double share;  // of the bar's length
  std::string value;
};

/// Named bars under a heading; returns where the next thing may begin.
double draw_bars(Svg& svg, double y, const std::string& heading, const std::vector<Bar>& bars, const char* css,
                 double chance) {
  constexpr double kHeading = 590, kX = 690, kBar = 200, kRow = 20;
  if (bars.empty()) return y;
  svg.text(kHeading, y, heading, "strong");
  double row = y + 10;
  const double top = row - 4;
  for (const Bar& bar : bars) {
    svg.text(kX - 8, row + 10, fit_text(bar.name, 11, 92), "", "end");
    svg.rect(kX, row, kBar, 13, "track", 2);
    if (std::isfinite(bar.share)) svg.rect(kX, row, kBar * std::clamp(bar.share, 0.0, 1.0), 13, css, 2);
    svg.text(kX + kBar + 6, row + 10, bar.value);
    row += kRow;
  }
  if (!std::isfinite(chance)) return row + 20;
  svg.line(kX + kBar * chance, top, kX + kBar * chance, row - 3, "chance");
  svg.text(kX + kBar * chance, row + 9, fmt::format("by chance {:.0f}%", 100 * chance), "soft", "middle");
  return row + 36;
}

}  // namespace

std::optional<Svg> mask_chart(const Report& report) {
  const ReportMasks& masks = report.masks;
  if (masks.stage.empty()) return std::nullopt;
  const double chance =
      masks.num_channels > 0 ? static_cast<double>(masks.num_kept) / static_cast<double>(masks.num_channels) : kAbsent;
  const auto stage =
      std::ranges::find_if(report.stages, [&](const ReportStage& row) { return row.name == masks.stage; });

  Svg svg(kChartWidth, 0);
  svg.text(
      0, 14,
      fmt::format("The mask of stage '{}': {} of {} {}", masks.stage, masks.num_kept, masks.num_channels, masks.units),
      "head");
  double y = 36;
  if (!masks.layers.empty() && !masks.step.empty()) {
    if (masks.per_layer) draw_layer_legend(svg, y, masks.layers.size());
    draw_layers(svg, masks, y + 46, chance);
    y += 46 + kHeight + kAxis;
  }
  if (stage != report.stages.end() && draw_health(svg, *stage, masks.unit, y + 32, chance)) y += 32 + kHeight + kAxis;

  const bool has_losses = stage != report.stages.end() && draw_losses(svg, *stage, y + 12);
  std::vector<Bar> overlaps, costs;
  for (const auto& [name, share] : masks.overlap)
    overlaps.push_back({name, share, fmt::format("{:.0f}%", 100 * share)});
  Range range;
  for (const double loss : {0.0, masks.soft_loss, masks.hard_loss, masks.pruned_loss, masks.random_loss})
    range.add(loss);
  for (const auto& [name, loss] : {std::pair{"soft mask", masks.soft_loss},
                                   {"learned cut", masks.hard_loss},
                                   {"pruned", masks.pruned_loss},
                                   {"random cut", masks.random_loss}})
    if (std::isfinite(loss))
      costs.push_back({name, range.high > 0 ? loss / range.high : 0, fmt::format("{:.3f}", loss)});
  double below = draw_bars(svg, y + 3, fmt::format("at the end: kept {}s that a score would keep too", masks.unit),
                           overlaps, "fmethod", chance);
  below = draw_bars(svg, below, "at the end: held-out loss, nats a token", costs, "fcut", kAbsent);
  Svg fitted(kChartWidth,
             std::max(has_losses ? y + 12 + kHeight + 54 : y, overlaps.empty() && costs.empty() ? y : below - 10));
  fitted.place(svg, 0, 0);
  return fitted;
}

}  // namespace coppice
