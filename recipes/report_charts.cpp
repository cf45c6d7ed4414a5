#include "recipes/report_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

namespace coppice {
namespace {

constexpr double kLeft = 72;  // room for tick labels and the axis name
constexpr double kRight = 12;
constexpr size_t kPoints = 240;  // a line of a panel

double value_of(const std::map<std::string, double>& line, const char* key) {
  const auto found = line.find(key);
  return found == line.end() ? kAbsent : found->second;
}

/// The series of one key against tokens (steps where tokens are absent); lines without the key are left out.
Points series(const ReportStage& stage, const char* key) {
  Points points;
  for (const auto& line : stage.metrics) {
    const double tokens = value_of(line, "tokens"), y = value_of(line, key);
    if (line.contains(key)) points.emplace_back(std::isnan(tokens) ? value_of(line, "step") : tokens, y);
  }
  return points;
}

/// True-label cross-entropy where it is logged, so that stages with and without labels share one scale.
Points training_loss(const ReportStage& stage) {
  const Points ce = series(stage, "ce");
  return ce.empty() ? series(stage, "loss") : ce;
}

struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  void add(const Points& points) {
    for (const auto& point : points) add(point.second);
  }
  /// All but the highest `share` of the points: a spike may leave the picture.
  void add_without_spikes(const Points& points, double share) {
    std::vector<double> sorted;
    for (const auto& point : points)
      if (std::isfinite(point.second)) sorted.push_back(point.second);
    if (sorted.empty()) return;
    std::ranges::sort(sorted);
    add(sorted.front());
    add(sorted[static_cast<size_t>(static_cast<double>(sorted.size() - 1) * (1.0 - share))]);
  }
};

const char* purpose_colour(StagePurpose purpose) { return purpose == StagePurpose::source ? "source" : purpose == StagePurpose::method ? "method" : "compare"; }

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

/// Panels in recipe order, at most five a row; widths follow the square root of the tokens, so that short stages stay readable.
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

/// Key of a drawing: a stroke and its words, left to right from x.
double legend(Svg& svg, double x, double y, std::string_view css, std::string_view words) {
  svg.line(x, y - 4, x + 20, y - 4, css);
  svg.text(x + 26, y, words, "soft");
  return x + 26 + text_width(words, 11) + 22;
}

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
    if (panel.first && x_label) svg.text((kLeft + kChartWidth - kRight) / 2, top + height + 32, "tokens of the stage", "soft", "middle");
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
    range.add_without_spikes(series(*stage, "heldout_loss"), 0.03);
    purposes[static_cast<size_t>(stage->purpose)] = true;
  }
  const Svg charts = panels_chart(panels, 190, "cross-entropy, nats a token", round_axis(range.low, range.high, 5), true, [](const ReportStage& stage) {
    const std::string colour = purpose_colour(stage.purpose);
    return std::vector<ChartLine>{
        {.points = thin_out(training_loss(stage), kPoints), .css = colour + " thin", .label = ""},
        {.points = thin_out(series(stage, "heldout_loss"), kPoints), .css = colour + " thick", .label = "", .dots = stage.metrics.size() < 4000}};
  });
  Svg svg(kChartWidth, charts.height() + 52);
  svg.text(0, 14, "Loss on the true next token, stage by stage", "head");
  double x = legend(svg, 0, 36, "ink thick", "held-out text");
  x = legend(svg, x, 36, "ink thin", "training text");
  const std::pair<StagePurpose, const char*> words[] = {
      {StagePurpose::source, "source"}, {StagePurpose::method, "the method"}, {StagePurpose::comparison, "comparison"}};
  x += 20;
  for (const auto& [purpose, name] : words)
    if (purposes[static_cast<size_t>(purpose)]) x = legend(svg, x, 36, std::string(purpose_colour(purpose)) + " thick", name);
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
      rows.push_back(panels_chart(panels, 84, label, round_axis(0, range.high, 3), true, [key = key](const ReportStage& stage) {
        return std::vector<ChartLine>{
            {.points = thin_out(series(stage, key), kPoints), .css = std::string(purpose_colour(stage.purpose)) + " thick", .label = ""}};
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
    const auto found = std::ranges::find_if(report.stages, [&](const ReportStage& stage) { return stage.name == name; });
    return found == report.stages.end() ? nullptr : &*found;
  };
  // A chain is a run of train stages, each from the one before; it ends at a stage that none continues.
  std::vector<ChartLine> lines;
  double most_tokens = 0, source_loss = kAbsent;
  std::string source_name;
  Range range;
  for (const ReportStage& leaf : report.stages) {
    if (leaf.kind != "train" || series(leaf, "heldout_loss").empty()) continue;
    if (leaf.purpose == StagePurpose::source) {
      source_loss = series(leaf, "heldout_loss").back().second;
      source_name = leaf.name;
      continue;
    }
    if (std::ranges::any_of(report.stages, [&](const ReportStage& other) {
          return other.kind == "train" && other.from == leaf.name && !series(other, "heldout_loss").empty();
        }))
      continue;
    std::vector<const ReportStage*> chain;
    for (const ReportStage* stage = &leaf;
         stage != nullptr && stage->kind == "train" && stage->purpose != StagePurpose::source && chain.size() <= report.stages.size();
         stage = find(stage->from))
      chain.insert(chain.begin(), stage);
    Points points;
    double before = 0;
    for (const ReportStage* stage : chain) {
      const Points all = training_loss(*stage);
      for (const auto& [x, y] : series(*stage, "heldout_loss")) points.emplace_back(before + x, y);
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
    lines.push_back({.points = {{0, source_loss}, {most_tokens, source_loss}}, .css = "source dash", .label = source_name + " at its end"});
  double widest = 60;
  for (const ChartLine& line : lines) widest = std::max(widest, text_width(line.label, 11));
  const double label_room = std::min(widest, 200.0) + 24;
  Svg svg(kChartWidth, 312);
  svg.text(0, 14, "After the cut: held-out loss by tokens trained since", "head");
  draw_chart(svg, {.x = kLeft,
                   .y = 40,
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
        lines.push_back({.points = points.size() > kPoints ? thin_out(points, kPoints) : points, .css = fmt::format("d{} thick", depth(layer)), .label = ""});
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
        if (line.contains(key)) points.emplace_back(value_of(line, "step"), line.at(key));
      if (points.empty()) continue;
      range.add(points);
      last = std::max(last, points.back().first);
      lines.push_back({.points = thin_out(points, kPoints), .css = css, .label = label, .dots = points.size() <= 60});
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
