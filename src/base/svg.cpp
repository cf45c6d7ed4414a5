#include "src/base/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "src/base/errors.h"
#include "src/base/utf8_byte.h"

namespace coppice {

std::string escape_xml(std::string_view text) {
  std::string out;
  for (const char c : printable(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string chart_style() {
  // Hues of Okabe and Ito, told apart by all common kinds of colour vision; the depth ramp follows cividis (blue to
  // yellow, even lightness steps).
  const char* light[] = {"#0b3c7d", "#2f5287", "#52678a", "#6f7b85", "#8b8c72", "#a3954f", "#b8992b", "#c99a00"};
  const char* dark[] = {"#6ea8ff", "#86b3f0", "#9bbddd", "#b0c4c4", "#c5cba7", "#d7cf87", "#e8d264", "#f8d53c"};
  std::string css =
      "svg{font:11px/1 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica "
      "Neue',Arial,sans-serif;font-variant-numeric:tabular-nums}\n"
      "svg text{fill:#3f464d}svg .strong{fill:#14181c;font-weight:600}svg "
      ".head{fill:#14181c;font-weight:650;font-size:13px}svg .soft{fill:#69727a}\n"
      "svg .back{fill:#fff}svg .grid{stroke:#e4e8eb}svg .frame{stroke:#aeb6bd}svg "
      ".chance{stroke:#69727a;stroke-dasharray:3 3}svg .track{fill:#eef1f3}\n"
      "svg polyline,svg path{fill:none;stroke-linejoin:round;stroke-linecap:round}\n"
      "svg .source{stroke:#6b757e}svg .method{stroke:#0072b2}svg .compare{stroke:#c45100}svg .s0{stroke:#0072b2}svg "
      ".s1{stroke:#c45100}svg "
      ".s2{stroke:#00855f}\n"
      "svg .s3{stroke:#a8487f}svg .s4{stroke:#946c00}svg .s5{stroke:#3c7fb1}\n"
      "svg .fsource{fill:#6b757e}svg .fmethod{fill:#0072b2}svg .fcut{fill:#6db3d9}svg .fcompare{fill:#d97b3c}svg "
      ".fother{fill:#a9b1b8}\n"
      "svg .thin{stroke-width:1.1;stroke-opacity:.5}svg .thick{stroke-width:2}svg .dash{stroke-dasharray:5 "
      "4;stroke-width:1.4}\n"
      "svg .lead{stroke-width:1;stroke-opacity:.55;stroke-dasharray:1 4}svg .ink{stroke:#3f464d}\n";
  std::string night =
      "svg text{fill:#b6bfc8}svg .strong,svg .head{fill:#f0f3f6}svg .soft{fill:#8e98a2}svg .back{fill:#0f1317}svg "
      ".grid{stroke:#262c33}svg "
      ".frame{stroke:#59626b}\n"
      "svg .chance{stroke:#8e98a2}svg .ink{stroke:#b6bfc8}svg .track{fill:#1d232a}svg .source{stroke:#a3adb6}svg "
      ".method{stroke:#56b4e9}svg "
      ".compare{stroke:#f0914a}svg "
      ".s0{stroke:#56b4e9}\n"
      "svg .s1{stroke:#f0914a}svg .s2{stroke:#35c79a}svg .s3{stroke:#e58fbf}svg .s4{stroke:#e3bd4a}svg "
      ".s5{stroke:#9cc8e6}\n"
      "svg .fsource{fill:#8a949d}svg .fmethod{fill:#56b4e9}svg .fcut{fill:#2f6f96}svg .fcompare{fill:#d6813f}svg "
      ".fother{fill:#59626b}\n";
  const char* light_fills[] = {"#0072b2", "#d97b3c", "#00855f", "#a8487f", "#c9a227", "#6db3d9"};
  const char* dark_fills[] = {"#2f82b8", "#d6813f", "#2aa37c", "#bd6599", "#c9a53a", "#9cc8e6"};
  for (int i = 0; i < kNumFills; ++i) {
    css += fmt::format("svg .f{}{{fill:{}}}", i, light_fills[i]);
    night += fmt::format("svg .f{}{{fill:{}}}", i, dark_fills[i]);
  }
  css += "svg .gone{fill-opacity:.5}\n";
  for (int i = 0; i < kNumDepthColours; ++i) {
    css += fmt::format("svg .d{}{{stroke:{}}}svg .fd{}{{fill:{}}}", i, light[i], i, light[i]);
    night += fmt::format("svg .d{}{{stroke:{}}}svg .fd{}{{fill:{}}}", i, dark[i], i, dark[i]);
  }
  return css + "\n@media (prefers-color-scheme:dark){\n" + night + "\n}\n";
}

double text_width(std::string_view text, double font_size) {
  double ems = 0;
  for (const char c : text)
    if (!is_continuation_byte(c))
      ems += std::string_view("ijl.,:;|!'() ").find(c) != std::string_view::npos ? 0.36
             : std::string_view("mwMW%").find(c) != std::string_view::npos       ? 0.92
                                                                                 : 0.61;
  return ems * font_size;
}

std::string fit_text(std::string_view text, double font_size, double width) {
  if (text_width(text, font_size) <= width) return std::string(text);
  size_t bytes = text.size();
  while (bytes > 0 && (text_width(text.substr(0, bytes), font_size) + font_size > width ||
                       (bytes < text.size() && is_continuation_byte(text[bytes]))))
    --bytes;
  return std::string(text.substr(0, bytes)) + "\u2026";
}

std::string number_text(double value) {
  if (value == 0) return "0";
  const double size = std::abs(value);
  for (const auto& [unit, suffix] : {std::pair{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "k"}})
    if (size >= unit * 0.9995 && size < unit * 1e4) return fmt::format("{:.3g}{}", value / unit, suffix);
  if (size >= 1e-3) return fmt::format("{:.3g}", value);
  return fmt::format("{:.2g}", value);
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view css) {
  body_ += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n", x1, y1, x2, y2,
                       css);
}

void Svg::polyline(const Points& points, std::string_view css) {
  std::string run;
  size_t length = 0;
  std::pair<double, double> last;
  const auto flush = [&] {
    if (length == 1) circle(last.first, last.second, 2, fmt::format("{} thick", css));
    if (length > 1) body_ += fmt::format("<polyline points=\"{}\" class=\"{}\"/>\n", run.substr(1), css);
    run.clear();
    length = 0;
  };
  for (const auto& point : points) {
    if (!std::isfinite(point.first) || !std::isfinite(point.second)) {
      flush();
      continue;
    }
    run += fmt::format(" {:.1f},{:.1f}", point.first, point.second);
    last = point;
    ++length;
  }
  flush();
}

void Svg::path(std::string_view commands, std::string_view css) {
  body_ += fmt::format("<path d=\"{}\" class=\"{}\"/>\n", commands, css);
}

void Svg::circle(double x, double y, double radius, std::string_view css) {
  body_ +=
      fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" class=\"{}\" fill=\"none\"/>\n", x, y, radius, css);
}

void Svg::rect(double x, double y, double width, double height, std::string_view css, double radius) {
  const std::string rounding = radius > 0 ? fmt::format(" rx=\"{:.1f}\"", radius) : "";
  body_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"{}\"{}/>\n", x, y,
                       width, height, css, rounding);
}

void Svg::text(double x, double y, std::string_view text, std::string_view css, std::string_view anchor) {
  const std::string style = css.empty() ? "" : fmt::format(" class=\"{}\"", css);
  const std::string place = anchor == "start" ? "" : fmt::format(" text-anchor=\"{}\"", anchor);
  body_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\"{}{}>{}</text>\n", x, y, style, place, escape_xml(text));
}

void Svg::text_upwards(double x, double y, std::string_view text, std::string_view css) {
  body_ += fmt::format(
      "<text transform=\"translate({:.1f} {:.1f}) rotate(-90)\" text-anchor=\"middle\" class=\"{}\">{}</text>\n", x, y,
      css, escape_xml(text));
}

std::string Svg::element(std::string_view title, std::string_view attributes, std::string_view before) const {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" "
      "{}>\n<title>{}</title>\n{}{}</svg>\n",
      width_, height_, attributes, escape_xml(title), before, body_);
}

std::string Svg::inline_element(std::string_view title) const { return element(title, "width=\"100%\"", ""); }

std::string Svg::document(std::string_view title) const {
  const std::string before =
      "<style>\n" + chart_style() + "</style>\n<rect width=\"100%\" height=\"100%\" class=\"back\"/>\n";
  return element(title, fmt::format("width=\"{:.0f}\" height=\"{:.0f}\"", width_, height_), before);
}

void Svg::place(const Svg& other, double x, double y) {
  body_ += fmt::format("<g transform=\"translate({:.1f} {:.1f})\">\n{}</g>\n", x, y, other.body_);
}

double Axis::place(double value, double from, double to) const {
  if (std::isnan(value)) return value;
  return from + (std::clamp(value, low, high) - low) / (high - low) * (to - from);
}

Axis round_axis(double low, double high, int count, bool tight) {
  if (!std::isfinite(low) || !std::isfinite(high) || low > high) low = 0, high = 1;
  if (high - low <= 1e-12 * std::max(std::abs(low), std::abs(high))) {
    const double open = low == 0 ? 1.0 : 0.1 * std::abs(low);
    low = low == 0 ? 0 : low - open;
    high += open;
  }
  const double raw = (high - low) / std::max(count, 1), power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double round : {1.0, 2.0, 2.5, 5.0})
    if (round * power >= raw * (1 - 1e-9)) {
      step = round * power;
      break;
    }
  Axis axis{.low = low, .high = high, .ticks = {}};
  if (!tight) {
    axis.low = std::floor(low / step + 1e-9) * step;
    axis.high = std::ceil(high / step - 1e-9) * step;
  }
  for (double i = std::ceil(axis.low / step - 1e-9); i * step <= axis.high + 1e-9 * step; ++i)
    axis.ticks.push_back(i * step);
  return axis;
}

void draw_chart(Svg& svg, const Chart& chart) {
  const double right = chart.x + chart.width, bottom = chart.y + chart.height;
  for (const double tick : chart.y_axis.ticks) {
    const double y = chart.y_axis.place(tick, bottom, chart.y);
    svg.line(chart.x, y, right, y, "grid");
    if (chart.y_tick_labels) svg.text(chart.x - 6, y + 3.5, number_text(tick), "soft", "end");
  }
  svg.line(chart.x, bottom, right, bottom, "frame");
  double free_from = chart.x - 20;  // ticks whose text would touch the one before stay unlabelled
  for (const double tick : chart.x_axis.ticks) {
    const double x = chart.x_axis.place(tick, chart.x, right);
    const std::string text = number_text(tick);
    const double half = text_width(text, 11) / 2;
    svg.line(x, bottom, x, bottom + 4, "frame");
    const bool at_edge = x + half > right + 4;  // the next chart may begin there
    const double begin = at_edge ? right + 4 - 2 * half : x - half;
    if (begin < free_from) continue;
    svg.text(at_edge ? right + 4 : x, bottom + 15, text, "soft", at_edge ? "end" : "middle");
    free_from = begin + 2 * half + 6;
  }
  if (!chart.title.empty()) svg.text(chart.x, chart.y - 9, chart.title, "strong");
  if (!chart.x_label.empty()) svg.text(chart.x + chart.width / 2, bottom + 30, chart.x_label, "soft", "middle");
  if (!chart.y_label.empty()) svg.text_upwards(chart.x - 50, chart.y + chart.height / 2, chart.y_label, "soft");

  std::vector<std::pair<double, const ChartLine*>> ends;
  for (const ChartLine& line : chart.lines) {
    Points placed;
    for (const auto& [x, y] : line.points)
      placed.emplace_back(chart.x_axis.place(x, chart.x, right),
                          std::isfinite(y) ? chart.y_axis.place(y, bottom, chart.y) : y);
    svg.polyline(placed, line.css);
    if (line.dots)
      for (const auto& [x, y] : placed)
        if (std::isfinite(y)) svg.circle(x, y, 1.6, line.css);
    if (!chart.end_labels || line.label.empty()) continue;
    const auto last =
        std::find_if(placed.rbegin(), placed.rend(), [](const auto& point) { return std::isfinite(point.second); });
    if (last == placed.rend()) continue;
    ends.emplace_back(last->second, &line);
    if (last->first < right - 1) svg.line(last->first + 5, last->second, right + 2, last->second, line.css + " lead");
  }
  std::ranges::stable_sort(ends, {}, [](const auto& end) { return end.first; });
  std::vector<double> centres;
  for (const auto& [y, line] : ends) centres.push_back(y);
  centres = spread_apart(centres, 14, chart.y, bottom);
  for (size_t i = 0; i < ends.size(); ++i) {
    svg.line(right + 4, ends[i].first, right + 12, centres[i], ends[i].second->css);
    svg.text(right + 16, centres[i] + 3.5, fit_text(ends[i].second->label, 11, chart.end_label_width));
  }
}

std::vector<double> spread_apart(std::vector<double> centres, double gap, double low, double high) {
  std::vector<size_t> order(centres.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return centres[i]; });
  for (size_t i = 1; i < order.size(); ++i)
    centres[order[i]] = std::max(centres[order[i]], centres[order[i - 1]] + gap);
  if (!order.empty() && centres[order.back()] > high) {
    centres[order.back()] = high;
    for (size_t i = order.size() - 1; i-- > 0;)
      centres[order[i]] = std::min(centres[order[i]], centres[order[i + 1]] - gap);
  }
  if (!order.empty() &&
      centres[order.front()] < low) {  // too many for the room: start at the top and run over the bottom
    centres[order.front()] = low;
    for (size_t i = 1; i < order.size(); ++i)
      centres[order[i]] = std::max(centres[order[i]], centres[order[i - 1]] + gap);
  }
  return centres;
}

Points thin_out(const Points& points, size_t count) {
  if (points.size() <= count || count == 0) return points;
  Points out;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = i * points.size() / count, end = (i + 1) * points.size() / count;
    double x = 0, y = 0, finite = 0;
    for (size_t j = begin; j < end; ++j) {
      if (!std::isfinite(points[j].second)) continue;
      x += points[j].first;
      y += points[j].second;
      ++finite;
    }
    if (finite > 0) out.emplace_back(x / finite, y / finite);
  }
  return out;
}

}  // namespace coppice
