// A small hand for drawing: SVG text, axes with round ticks, line charts. Colours and type live in chart_style(), by
// class name, so that one drawing serves light and dark pages. Coordinates in CSS pixels, y downwards.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace coppice {

/// &, <, >, " and ' as entities; control characters and broken UTF-8 as printable() shows them.
std::string escape_xml(std::string_view text);

/// The style sheet of every drawing, without <style> tags; follows prefers-color-scheme.
std::string chart_style();
inline constexpr int kNumFills = 6;         // classes f0..f5: areas of kinds of things, told apart; fother: the rest
inline constexpr int kNumDepthColours = 8;  // classes d0..d7: a ramp for layers, first to last

using Points = std::vector<std::pair<double, double>>;

/// Width that `text` takes at a font size, by average glyph widths: an estimate, on the generous side.
double text_width(std::string_view text, double font_size);
/// `text` cut to a width with an ellipsis, never inside a UTF-8 character.
std::string fit_text(std::string_view text, double font_size, double width);

/// One number for a person: 0.05, 12, 1.2k, 3.4M, 1e-05.
std::string number_text(double value);

/// Elements of one drawing, in the order they are painted.
class Svg {
 public:
  Svg(double width, double height) : width_(width), height_(height) {}
  double width() const { return width_; }
  double height() const { return height_; }

  void line(double x1, double y1, double x2, double y2, std::string_view css);
  /// Lines through the points; a NaN breaks the line. One lone point becomes a dot.
  void polyline(const Points& points, std::string_view css);
  /// `commands` of a path; css with a filling class.
  void path(std::string_view commands, std::string_view css);
  void circle(double x, double y, double radius, std::string_view css);
  void rect(double x, double y, double width, double height, std::string_view css, double radius = 0);
  /// anchor: start, middle, end.
  void text(double x, double y, std::string_view text, std::string_view css = "", std::string_view anchor = "start");
  /// A text turned to read upwards, centred on (x, y).
  void text_upwards(double x, double y, std::string_view text, std::string_view css = "");

  /// `<svg ...>` for a page that has chart_style() already; `title` is read aloud by screen readers.
  std::string inline_element(std::string_view title) const;
  /// A whole file with its own style and background.
  std::string document(std::string_view title) const;
  /// Paints another drawing's elements with its corner at (x, y).
  void place(const Svg& other, double x, double y);

 private:
  std::string element(std::string_view title, std::string_view attributes, std::string_view before) const;
  double width_, height_;
  std::string body_;
};

/// A range with round ticks that cover it.
struct Axis {
  double low = 0, high = 1;
  std::vector<double> ticks;
  /// Position of a value between `from` (low) and `to` (high), clamped to the range; NaN stays NaN.
  double place(double value, double from, double to) const;
};
/// The range widened to round numbers, about `count` ticks; equal or absent ends are opened a little. With `tight` the
/// range stays and ticks lie inside.
Axis round_axis(double low, double high, int count, bool tight = false);

/// One line of a chart. `label` is written at its end when end labels are on.
struct ChartLine {
  Points points;
  std::string css;
  std::string label;
  bool dots = false;  // mark each point
};

/// A rectangle of a drawing with axes and lines.
struct Chart {
  double x = 0, y = 0, width = 0, height = 0;  // of the plotting area
  Axis x_axis, y_axis;
  std::string title, x_label, y_label;
  bool y_tick_labels = true;
  bool end_labels = false;  // to the right of the area: leave room there
  double end_label_width = 110;
  std::vector<ChartLine> lines;
};
void draw_chart(Svg& svg, const Chart& chart);

/// Moves centres apart until neighbours lie `gap` apart, inside [low, high] where they fit; keeps their order.
std::vector<double> spread_apart(std::vector<double> centres, double gap, double low, double high);

/// At most `count` points: means of consecutive runs, so that a long series stays readable and small.
Points thin_out(const Points& points, size_t count);

}  // namespace coppice
