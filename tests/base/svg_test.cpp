#include "src/base/svg.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("escape_xml: nothing from outside can open a tag, an entity or an attribute") {
    CHECK(escape_xml("<b a=\"1\" c='2'>&amp;</b>") == "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;&lt;/b&gt;");
    CHECK(escape_xml("\x1b[31m").find('\x1b') == std::string::npos);
    CHECK(escape_xml("caf\u00e9 \u2192") == "caf\u00e9 \u2192");
  }

  TEST_CASE("number_text: short, with units, never exponents where a unit will do") {
    CHECK(number_text(0) == "0");
    CHECK(number_text(0.05) == "0.05");
    CHECK(number_text(12) == "12");
    CHECK(number_text(999.9) == "1k");
    CHECK(number_text(1250) == "1.25k");
    CHECK(number_text(300000) == "300k");
    CHECK(number_text(2.58e9) == "2.58B");
    CHECK(number_text(-2500) == "-2.5k");
    CHECK(number_text(1e-5) == "1e-05");
  }

  TEST_CASE("fit_text: cut to the width, with an ellipsis, at whole characters") {
    CHECK(fit_text("core", 11, 100) == "core");
    const std::string cut = fit_text("a_very_long_stage_name_that_nobody_can_read", 11, 80);
    CHECK(cut.ends_with("\u2026"));
    CHECK(text_width(cut, 11) <= 80 + 11);
    const std::string accents =
        fit_text("\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9", 11, 40);
    CHECK(accents.size() % 2 == 1);  // two bytes a letter, three for the ellipsis
    CHECK(fit_text("abc", 11, 0) == "\u2026");
  }

  TEST_CASE("round_axis: covers the range with round steps") {
    const Axis axis = round_axis(2.91, 6.2, 5);
    CHECK(axis.low == 2);
    CHECK(axis.high == 7);
    CHECK(axis.ticks == std::vector<double>{2, 3, 4, 5, 6, 7});
    const Axis tight = round_axis(0, 130, 3, /*tight=*/true);
    CHECK(tight.high == 130);
    CHECK(tight.ticks == std::vector<double>{0, 50, 100});
  }

  TEST_CASE("round_axis: one value, no value, not a number") {
    for (const Axis& axis : {round_axis(3, 3, 4), round_axis(0, 0, 4), round_axis(INFINITY, -INFINITY, 4),
                             round_axis(NAN, 1, 4), round_axis(-2, -2, 4)}) {
      CHECK(axis.low < axis.high);
      CHECK(std::isfinite(axis.low));
      CHECK(std::isfinite(axis.high));
      CHECK_FALSE(axis.ticks.empty());
      CHECK(axis.ticks.size() < 20);
    }
  }

  TEST_CASE("Axis::place: ends, middle, clamped outside, NaN kept") {
    const Axis axis{.low = 2, .high = 4, .ticks = {}};
    CHECK(axis.place(2, 100, 0) == 100);
    CHECK(axis.place(3, 100, 0) == 50);
    CHECK(axis.place(9, 100, 0) == 0);
    CHECK(std::isnan(axis.place(NAN, 100, 0)));
  }

  TEST_CASE("spread_apart: keeps the order and the gap, inside where there is room") {
    CHECK(spread_apart({50, 52, 20}, 10, 0, 100) == std::vector<double>{50, 60, 20});
    CHECK(spread_apart({98, 99, 100}, 10, 0, 100) == std::vector<double>{80, 90, 100});
    const std::vector<double> crowded = spread_apart({5, 5, 5, 5}, 10, 0, 20);
    for (size_t i = 1; i < 4; ++i) CHECK(crowded[i] - crowded[i - 1] >= 10);
    CHECK(spread_apart({}, 10, 0, 20).empty());
  }

  TEST_CASE("thin_out: means of runs; what is not finite is left out") {
    const Points points = {{1, 1}, {2, 3}, {3, NAN}, {4, 7}, {5, 9}, {6, 11}};
    CHECK(thin_out(points, 6).size() == 6);
    CHECK(thin_out(points, 3) == Points{{1.5, 2}, {4, 7}, {5.5, 10}});
  }

  TEST_CASE("Svg: a NaN breaks a line, a lone point becomes a dot, no NaN is written") {
    Svg svg(100, 50);
    svg.polyline({{1, 1}, {2, 2}, {3, NAN}, {4, 4}, {5, NAN}, {6, 6}, {7, 7}}, "s0");
    const std::string text = svg.document("a < b");
    const auto count = [&](std::string_view part) {
      size_t found = 0;
      for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
      return found;
    };
    CHECK(count("<polyline") == 2);
    CHECK(count("<circle") == 1);
    CHECK(count("nan") == 0);
    CHECK(count("<title>a &lt; b</title>") == 1);
  }
}
