// The drawing of an ablation: arms down, measures across, each with its own scale.
#include <algorithm>
#include <cmath>

#include "recipes/report/ablation_report.h"
#include "recipes/report/paired_test.h"
#include "recipes/report/report_charts.h"
#include "recipes/report/report_series.h"

namespace coppice {
namespace {

constexpr double kName = 190, kPitch = 256, kPanel = 208, kRow = 26, kTop = 62, kBelow = 40;

struct Panel {
  const char* title;
  double ReportScore::*of;
  double factor;
};
constexpr Panel kPanels[] = {{"loss in nats (less is better)", &ReportScore::loss, 1},
                             {"accuracy, % (more is better)", &ReportScore::accuracy, 100},
                             {"agreement with the teacher, %", &ReportScore::teacher_agreement, 100}};

std::vector<double> scaled(const ReportArm& arm, const Panel& panel) {
  std::vector<double> values;
  for (const ReportModel& model : arm.models) values.push_back(panel.factor * (model.score.*(panel.of)));
  return values;
}

}  // namespace

Svg ablation_chart(const Comparison& comparison) {
  std::vector<const ReportArm*> arms;
  for (const ReportArm& arm : comparison.arms) arms.push_back(&arm);
  const auto loss = [](const ReportArm* arm) {
    const Spread spread = spread_of(scaled(*arm, kPanels[0]));
    return spread.n > 0 ? spread.mean : 1e30;  // not evaluated: last
  };
  std::ranges::stable_sort(arms, {}, loss);

  const double bottom = kTop + kRow * static_cast<double>(arms.size());
  Svg svg(kChartWidth, bottom + kBelow);
  svg.text(0, 14, comparison.title, "head");
  for (size_t i = 0; i < arms.size(); ++i)
    svg.text(kName - 12, kTop + kRow * (static_cast<double>(i) + 0.5) + 4, fit_text(arms[i]->name, 11, kName - 14),
             arms[i]->is_reference() ? "strong" : "", "end");
  for (size_t p = 0; p < std::size(kPanels); ++p) {
    const double left = kName + kPitch * static_cast<double>(p), right = left + kPanel;
    Range range;
    for (const ReportArm* arm : arms) {
      const std::vector<double> values = scaled(*arm, kPanels[p]);
      const Spread spread = spread_of(values);
      for (const double value : values) range.add(value);
      if (spread.n > 1) {
        range.add(spread.mean - spread.sd);
        range.add(spread.mean + spread.sd);
      }
    }
    svg.text(left, kTop - 18, kPanels[p].title, "strong");
    if (!(range.low <= range.high)) continue;
    const Axis axis = round_axis(range.low, range.high, 4);
    for (const double tick : axis.ticks) {
      const double x = axis.place(tick, left, right);
      svg.line(x, kTop - 6, x, bottom, "grid");
      svg.text(x, bottom + 16, number_text(tick), "soft", "middle");
    }
    for (const ReportArm* arm : arms)
      if (const Spread spread = spread_of(scaled(*arm, kPanels[p])); arm->is_reference() && spread.n > 0) {
        const double x = axis.place(spread.mean, left, right);
        svg.line(x, kTop - 6, x, bottom, "chance");
      }
    for (size_t i = 0; i < arms.size(); ++i) {
      const std::vector<double> values = scaled(*arms[i], kPanels[p]);
      const Spread spread = spread_of(values);
      const double y = kTop + kRow * (static_cast<double>(i) + 0.5);
      if (spread.n == 0) continue;
      if (spread.n > 1) {
        const double low = axis.place(spread.mean - spread.sd, left, right),
                     high = axis.place(spread.mean + spread.sd, left, right);
        const std::string css = arms[i]->is_reference() ? "method thick" : "compare thick";
        svg.line(low, y, high, y, css);
        for (const double end : {low, high}) svg.line(end, y - 4, end, y + 4, css);
      }
      for (const double value : values)
        if (std::isfinite(value)) svg.circle(axis.place(value, left, right), y, 2, "fother");
      svg.circle(axis.place(spread.mean, left, right), y, 4.5, arms[i]->is_reference() ? "fmethod" : "fcompare");
    }
  }
  return svg;
}

std::string ablation_svg(const AblationReport& report) {
  constexpr double kMargin = 24, kGap = 20;
  double height = kMargin;
  std::vector<Svg> charts;
  for (const Comparison& comparison : report.comparisons) {
    charts.push_back(ablation_chart(comparison));
    height += charts.back().height() + kGap;
  }
  Svg page(kChartWidth + 2 * kMargin, height);
  double y = kMargin;
  for (const Svg& chart : charts) {
    page.place(chart, kMargin, y);
    y += chart.height() + kGap;
  }
  return page.document("Ablation " + report.recipe);
}

}  // namespace coppice
