// Drawings of training: panels of loss and rate, and the race after the cut.
#include "recipes/report/report_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "recipes/report/report_series.h"

namespace coppice {
namespace {

constexpr double kLeft = 72;  // room for tick labels and the axis name
constexpr double kRight = 12;

const char* purpose_colour(StagePurpose purpose) {
  return purpose == StagePurpose::source ? "source" : purpose == StagePurpose::method ? "method" : "compare";
}

std::vector<const ReportStage*> training_stages(const Report& report) {
  std::vector<const ReportStage*> stages;
  for (const ReportStage& stage : report.stages)
    if (!training_loss(stage).empty()) stages.push_back(&stage);
  return stages;
}

/// Where the panel of one stage lies within its row.
struct Panel {
  const ReportStage* stage;
  size_t row;
  double x, width;
  bool first;  // of its row: carries the scale
};

/// Panels in recipe order, at most five a row; widths follow the square root of the tokens, so that short stages stay
/// readable.
std::vector<Panel> lay_out(const std::vector<const ReportStage*>& stages) {
  constexpr size_t kPerRow = 5;
  constexpr double kGap = 18;
  const size_t rows = (stages.size() + kPerRow - 1) / kPerRow, per_row = (stages.size() + rows - 1) / rows;
  std::vector<Panel> panels;
  for (size_t begin = 0; begin < stages.size(); begin += per_row) {
    const size_t end = std::min(begin + per_row, stages.size());
    std::vector<double> weights;
    double sum = 0, largest = 0;
    for (size_t i = begin; i < end; ++i) {
      const Points points = training_loss(*stages[i]);
      weights.push_back(std::sqrt(std::max(points.back().first, 1.0)));
      largest = std::max(largest, weights.back());
    }
    for (double& weight : weights) sum += weight = std::max(weight, 0.55 * largest);
    const double room = kChartWidth - kLeft - kRight - kGap * static_cast<double>(end - begin - 1);
    double x = kLeft;
    for (size_t i = begin; i < end; ++i) {
      const double width = room * weights[i - begin] / sum;
      panels.push_back({.stage = stages[i], .row = begin / per_row, .x = x, .width = width, .first = i == begin});
      x += width + kGap;
    }
  }
  return panels;
}

Axis token_axis(const ReportStage& stage, double width) {
  const Points points = training_loss(stage);
  return round_axis(0, points.empty() ? 1.0 : points.back().first, static_cast<int>(width / 62), /*tight=*/true);
}

std::string panel_title(const Panel& panel) { return fit_text(panel.stage->name, 12, panel.width); }

/// One row of panels a quantity: lines of `keys` on a common scale.
Svg panels_chart(const std::vector<Panel>& panels, double height, const char* y_label, const Axis& y_axis, bool x_label,
                 const std::function<std::vector<ChartLine>(const ReportStage&)>& lines) {
  const double row_height = height + (x_label ? 74 : 52);
  Svg svg(kChartWidth, row_height * static_cast<double>(panels.back().row + 1));
  for (const Panel& panel : panels) {
    const double top = row_height * static_cast<double>(panel.row) + 24;
    draw_chart(svg, {.x = panel.x,
                     .y = top,
                     .width = panel.width,
                     .height = height,
                     .x_axis = token_axis(*panel.stage, panel.width),
                     .y_axis = y_axis,
                     .title = panel_title(panel),
                     .x_label = "",
                     .y_label = panel.first ? y_label : "",
                     .y_tick_labels = panel.first,
                     .lines = lines(*panel.stage)});
    if (panel.first && x_label)
      svg.text((kLeft + kChartWidth - kRight) / 2, top + height + 32, "tokens of the stage", "soft", "middle");
  }
  return svg;
}

}  // namespace

std::optional<Svg> loss_chart(const Report& report) {
  const auto stages = training_stages(report);
  if (stages.empty()) return std::nullopt;
  const std::vector<Panel> panels = lay_out(stages);
  Range range;
  bool purposes[3] = {};
  for (const ReportStage* stage : stages) {
    range.add_without_spikes(training_loss(*stage), 0.03);
    range.add_without_spikes(finite_series(*stage, "heldout_loss"), 0.03);
    purposes[static_cast<size_t>(stage->purpose)] = true;
  }
  const Svg charts =
      panels_chart(panels, 190, "cross-entropy, nats a token", round_axis(range.low, range.high, 5), true,
                   [](const ReportStage& stage) {
                     const std::string colour = purpose_colour(stage.purpose);
                     return std::vector<ChartLine>{
                         {.points = thin_out(training_loss(stage), kPanelPoints), .css = colour + " thin", .label = ""},
                         {.points = thin_out(finite_series(stage, "heldout_loss"), kPanelPoints),
                          .css = colour + " thick",
                          .label = "",
                          .dots = stage.metrics.size() < 4000}};
                   });
  Svg svg(kChartWidth, charts.height() + 52);
  svg.text(0, 14, "Loss on the true next token, stage by stage", "head");
  double x = legend(svg, 0, 36, "ink thick", "held-out text");
  x = legend(svg, x, 36, "ink thin", "training text");
  const std::pair<StagePurpose, const char*> words[] = {
      {StagePurpose::source, "source"}, {StagePurpose::method, "the method"}, {StagePurpose::comparison, "comparison"}};
  x += 20;
  for (const auto& [purpose, name] : words)
    if (purposes[static_cast<size_t>(purpose)])
      x = legend(svg, x, 36, std::string(purpose_colour(purpose)) + " thick", name);
  svg.place(charts, 0, 52);
  return svg;
}

std::optional<Svg> rate_chart(const Report& report) {
  const auto stages = training_stages(report);
  if (stages.empty()) return std::nullopt;
  const std::vector<Panel> panels = lay_out(stages);
  std::vector<Svg> rows;
  for (const auto& [key, label] : {std::pair{"lr", "learning rate"}, {"grad_norm", "gradient norm"}}) {
    Range range;
    range.add(0.0);
    bool any = false;
    for (const ReportStage* stage : stages) {
      const Points points = series(*stage, key);
      any |= !points.empty();
      range.add_without_spikes(points, 0.02);
    }
    if (any)
      rows.push_back(
          panels_chart(panels, 84, label, round_axis(0, range.high, 3), true, [key = key](const ReportStage& stage) {
            return std::vector<ChartLine>{{.points = thin_out(series(stage, key), kPanelPoints),
                                           .css = std::string(purpose_colour(stage.purpose)) + " thick",
                                           .label = ""}};
          }));
  }
  if (rows.empty()) return std::nullopt;
  double height = 30;
  for (const Svg& row : rows) height += row.height() + 8;
  Svg svg(kChartWidth, height);
  svg.text(0, 14, "Learning rate and gradient norm, stage by stage", "head");
  double y = 30;
  for (const Svg& row : rows) {
    svg.place(row, 0, y);
    y += row.height() + 8;
  }
  return svg;
}

std::optional<Svg> after_cut_chart(const Report& report) {
  const auto find = [&](const std::string& name) {
    const auto found =
        std::ranges::find_if(report.stages, [&](const ReportStage& stage) { return stage.name == name; });
    return found == report.stages.end() ? nullptr : &*found;
  };
  // A chain is a run of train stages, each from the one before; it ends at a stage that none continues.
  std::vector<ChartLine> lines;
  double most_tokens = 0, source_loss = kAbsent;
  bool has_labels = false;
  std::string source_name;
  Range range;
  for (const ReportStage& leaf : report.stages) {
    if (leaf.kind != "train" || finite_series(leaf, "heldout_loss").empty()) continue;
    if (leaf.purpose == StagePurpose::source) {
      source_loss = finite_series(leaf, "heldout_loss").back().second;
      source_name = leaf.name;
      continue;
    }
    if (std::ranges::any_of(report.stages, [&](const ReportStage& other) {
          return other.kind == "train" && other.from == leaf.name && !finite_series(other, "heldout_loss").empty();
        }))
      continue;
    std::vector<const ReportStage*> chain;
    for (const ReportStage* stage = &leaf;
         stage != nullptr && stage->kind == "train" && stage->purpose != StagePurpose::source &&
         chain.size() <= report.stages.size();
         stage = find(stage->from))
      chain.insert(chain.begin(), stage);
    // Trained on from the uncut source, its own or imported: no part of this race.
    if (const ReportStage* start = find(chain.front()->from); start != nullptr && start->kind != "prune") continue;
    Points points;
    double before = 0;
    for (const ReportStage* stage : chain) {
      const Points all = training_loss(*stage);
      has_labels |= !series(*stage, "kd").empty();
      for (const auto& [x, y] : finite_series(*stage, "heldout_loss")) points.emplace_back(before + x, y);
      before += all.empty() ? 0.0 : all.back().first;
    }
    range.add_without_spikes(points, points.size() > 40 ? 0.03 : 0.0);
    most_tokens = std::max(most_tokens, points.back().first);
    std::string label = chain.front()->name;
    if (chain.size() > 1) label += " \u2192 " + chain.back()->name;
    lines.push_back({.points = thin_out(points, 400), .css = "", .label = label, .dots = points.size() <= 120});
  }
  if (lines.empty()) return std::nullopt;
  // The method's own chain first and blue; no more colours than the eye can tell apart.
  for (size_t i = 0; i < lines.size(); ++i) lines[i].css = fmt::format("s{} thick", i % 6);
  range.add(source_loss);
  if (std::isfinite(source_loss))
    lines.push_back({.points = {{0, source_loss}, {most_tokens, source_loss}},
                     .css = "source dash",
                     .label = source_name + " at its end"});
  double widest = 60;
  for (const ChartLine& line : lines) widest = std::max(widest, text_width(line.label, 11));
  const double label_room = std::min(widest, 200.0) + 24;
  const double top = has_labels ? 56 : 40;
  Svg svg(kChartWidth, top + 272);
  svg.text(0, 14, "After the cut: held-out loss by tokens trained since", "head");
  if (has_labels)
    svg.text(0, 34,
             "Training on top-1 teacher labels raises the loss on true labels by design; accuracy and agreement show "
             "what it buys.",
             "soft");
  draw_chart(svg, {.x = kLeft,
                   .y = top,
                   .width = kChartWidth - kLeft - label_room,
                   .height = 220,
                   .x_axis = round_axis(0, most_tokens, 8, true),
                   .y_axis = round_axis(range.low, range.high, 5),
                   .title = "",
                   .x_label = "tokens since the cut, or since fresh weights",
                   .y_label = "cross-entropy, nats a token",
                   .end_labels = true,
                   .end_label_width = label_room - 18,
                   .lines = lines});
  return svg;
}

}  // namespace coppice
