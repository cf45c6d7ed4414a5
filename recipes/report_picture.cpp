// Drawings of the mask and of the models, and the one picture that joins all drawings.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <tuple>

#include "recipes/report_charts.h"
#include "recipes/report_series.h"

namespace coppice {

std::optional<Svg> mask_chart(const Report& report) {
  const ReportMasks& masks = report.masks;
  if (masks.stage.empty()) return std::nullopt;
  const size_t num_layers = masks.layers.size();
  const auto depth = [&](size_t layer) { return num_layers < 2 ? size_t{0} : layer * (kNumDepthColours - 1) / (num_layers - 1); };
  const double chance = masks.num_channels > 0 ? static_cast<double>(masks.num_kept) / static_cast<double>(masks.num_channels) : kAbsent;

  Svg svg(kChartWidth, 0);
  svg.text(0, 14, fmt::format("The mask of stage '{}': {} of {} FFN channels a layer", masks.stage, masks.num_kept, masks.num_channels), "head");
  double y = 36;
  if (num_layers > 0 && !masks.step.empty()) {
    double x = 0;
    svg.text(x, y, "layer", "soft");
    x += 34;
    if (num_layers <= kNumDepthColours) {
      for (size_t layer = 0; layer < num_layers; ++layer) x = legend(svg, x, y, fmt::format("d{} thick", depth(layer)), std::to_string(layer));
    } else {
      svg.text(x, y, "0", "soft");
      for (int i = 0; i < kNumDepthColours; ++i) svg.rect(x + 12 + 14 * i, y - 9, 14, 10, fmt::format("fd{}", i));
      svg.text(x + 12 + 14 * kNumDepthColours + 6, y, std::to_string(num_layers - 1), "soft");
    }
    y += 46;
    const Axis steps = round_axis(0, masks.step.back(), 4, true);
    constexpr double kWidth = 258, kPitch = 310;
    const std::pair<const char*, std::vector<double> ReportMaskLayer::*> measures[] = {
        {"kept share (sum of the mask / channels)", &ReportMaskLayer::kept_share},
        {"sharpness (1 = fully decided)", &ReportMaskLayer::sharpness},
        {"churn (share of kept channels exchanged)", &ReportMaskLayer::churn}};
    double left = 40;
    for (const auto& [title, measure] : measures) {
      Range range;
      range.add(0.0);
      if (measure != &ReportMaskLayer::churn) range.add(1.0);
      std::vector<ChartLine> lines;
      for (size_t layer = 0; layer < num_layers; ++layer) {
        Points points;
        const std::vector<double>& values = masks.layers[layer].*measure;
        for (size_t i = 0; i < std::min(values.size(), masks.step.size()); ++i) points.emplace_back(masks.step[i], values[i]);
        range.add(points);
        lines.push_back(
            {.points = points.size() > kPanelPoints ? thin_out(points, kPanelPoints) : points, .css = fmt::format("d{} thick", depth(layer)), .label = ""});
      }
      draw_chart(svg, {.x = left,
                       .y = y,
                       .width = kWidth,
                       .height = 140,
                       .x_axis = steps,
                       .y_axis = round_axis(range.low, std::max(range.high, 1e-3), 4),
                       .title = fit_text(title, 11.5, kWidth + 24),
                       .x_label = "step",
                       .y_label = "",
                       .lines = lines});
      if (measure == &ReportMaskLayer::kept_share && std::isfinite(chance)) {
        const double at = Axis{.low = 0, .high = round_axis(0, range.high, 4).high, .ticks = {}}.place(chance, y + 140, y);
        svg.line(left, at, left + kWidth, at, "chance");
      }
      left += kPitch;
    }
    y += 140 + 66;
  }

  double used = 0;
  const auto stage = std::ranges::find_if(report.stages, [&](const ReportStage& row) { return row.name == masks.stage; });
  if (stage != report.stages.end()) {
    std::vector<ChartLine> lines;
    Range range;
    double last = 1;
    const std::tuple<const char*, const char*, const char*> cuts[] = {
        {"heldout_random_loss", "s1 thick", "random cut"}, {"heldout_hard_loss", "s2 thick", "learned cut"}, {"heldout_loss", "s0 thick", "soft mask"}};
    for (const auto& [key, css, label] : cuts) {
      Points points;
      for (const auto& line : stage->metrics)
        if (std::isfinite(value_of(line, key))) points.emplace_back(value_of(line, "step"), value_of(line, key));
      if (points.empty()) continue;
      range.add(points);
      last = std::max(last, points.back().first);
      lines.push_back({.points = thin_out(points, kPanelPoints), .css = css, .label = label, .dots = points.size() <= 60});
    }
    if (!lines.empty()) {
      draw_chart(svg, {.x = 40,
                       .y = y,
                       .width = 390,
                       .height = 140,
                       .x_axis = round_axis(0, last, 5, true),
                       .y_axis = round_axis(range.low, range.high, 4),
                       .title = "held-out loss, nats a token, if the cut were made now",
                       .x_label = "step",
                       .y_label = "",
                       .end_labels = true,
                       .end_label_width = 90,
                       .lines = lines});
      used = 206;
    }
  }
  if (!masks.overlap.empty()) {
    constexpr double kX = 690, kBar = 210;
    svg.text(590, y - 9, "kept channels that another score would also keep", "strong");
    double row = y + 6;
    for (const auto& [name, share] : masks.overlap) {
      svg.text(kX - 8, row + 11, fit_text(name, 11, 92), "", "end");
      svg.rect(kX, row, kBar, 14, "track", 2);
      if (std::isfinite(share)) svg.rect(kX, row, kBar * std::clamp(share, 0.0, 1.0), 14, "fmethod", 2);
      svg.text(kX + kBar + 6, row + 11, fmt::format("{:.0f}%", 100 * share));
      row += 24;
    }
    if (std::isfinite(chance)) {
      svg.line(kX + kBar * chance, y, kX + kBar * chance, row - 2, "chance");
      svg.text(kX + kBar * chance, row + 12, fmt::format("by chance {:.0f}%", 100 * chance), "soft", "middle");
    }
    used = std::max(used, row + 24 - y);
  }
  Svg fitted(kChartWidth, y + used);
  fitted.place(svg, 0, 0);
  return fitted;
}

const char* role_colour(const ReportModel& model) {
  if (model.role == "source") return "fsource";
  if (model.role == "student") return "fmethod";
  if (model.role == "pruned") return "fcut";
  return model.role.empty() ? "fother" : "fcompare";
}

std::optional<Svg> models_chart(const Report& report) {
  if (report.models.empty()) return std::nullopt;
  struct Column {
    const char* title;
    std::function<double(const ReportModel&)> value;
    std::function<std::string(double)> text;
  };
  const auto percent = [](double value) { return fmt::format("{:.1f}%", 100 * value); };
  const Column columns[] = {
      {"parameters", [](const ReportModel& model) { return static_cast<double>(model.parameters); }, [](double value) { return number_text(value); }},
      {"loss in nats (less is better)", [](const ReportModel& model) { return model.score.loss; }, [](double value) { return fmt::format("{:.3f}", value); }},
      {"next-token accuracy", [](const ReportModel& model) { return model.score.accuracy; }, percent},
      {"agreement with the teacher", [](const ReportModel& model) { return model.score.teacher_agreement; }, percent},
  };
  constexpr double kName = 130, kPitch = 210, kBar = 146, kRow = 26, kTop = 54;
  Svg svg(kChartWidth, kTop + kRow * static_cast<double>(report.models.size()) + 6);
  svg.text(0, 14, "Models on the held-out text", "head");
  for (size_t i = 0; i < report.models.size(); ++i)
    svg.text(kName - 10, kTop + kRow * static_cast<double>(i) + 13, fit_text(report.models[i].name, 11, kName - 12),
             report.models[i].role == "student" ? "strong" : "", "end");
  for (size_t c = 0; c < std::size(columns); ++c) {
    const double x = kName + kPitch * static_cast<double>(c);
    Range range;
    range.add(0.0);
    for (const ReportModel& model : report.models) range.add(columns[c].value(model));
    svg.text(x, 42, columns[c].title, "strong");
    for (size_t i = 0; i < report.models.size(); ++i) {
      const double value = columns[c].value(report.models[i]), y = kTop + kRow * static_cast<double>(i);
      if (!std::isfinite(value)) {
        svg.text(x, y + 13, "\u2013", "soft");
        continue;
      }
      const double width = range.high > 0 ? std::max(1.0, kBar * value / range.high) : 1.0;
      svg.rect(x, y, width, 18, role_colour(report.models[i]), 2);
      svg.text(x + width + 6, y + 13, columns[c].text(value));
    }
  }
  return svg;
}

std::string report_svg(const Report& report) {
  std::vector<Svg> parts;
  for (const auto& chart : {models_chart(report), loss_chart(report), after_cut_chart(report), mask_chart(report)})
    if (chart) parts.push_back(*chart);
  constexpr double kMargin = 24, kGap = 28;
  double height = kMargin;
  for (const Svg& part : parts) height += part.height() + kGap;
  if (parts.empty()) height = 60;
  Svg page(kChartWidth + 2 * kMargin, height);
  double y = kMargin;
  for (const Svg& part : parts) {
    page.place(part, kMargin, y);
    y += part.height() + kGap;
  }
  if (parts.empty()) page.text(kMargin, 36, "Nothing to draw yet.", "soft");
  return page.document("Report of " + report.recipe);
}

}  // namespace coppice
