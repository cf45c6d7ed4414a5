// The drawing of the models, and the one picture that joins all drawings; the mask's are in report_mask_chart.cpp.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "recipes/report/report_charts.h"
#include "recipes/report/report_series.h"

namespace coppice {

const char* role_colour(const ReportModel& model) {
  if (model.role == "source" || model.role == "teacher") return "fsource";
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
      {"parameters", [](const ReportModel& model) { return static_cast<double>(model.parameters); },
       [](double value) { return number_text(value); }},
      {"loss in nats (less is better)", [](const ReportModel& model) { return model.score.loss; },
       [](double value) { return fmt::format("{:.3f}", value); }},
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
