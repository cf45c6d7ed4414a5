#include "src/tasks/chat_template.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/caught.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

std::string written(const std::string& source, const Json& variables = Json::object(), const std::tm& now = {}) {
  return ChatTemplate(source, "here").render(variables, now);
}

std::string refused(const std::string& source) {
  const Caught error = caught([&] { written(source, {{"text", "x"}, {"list", {1, 2}}}); });
  CAPTURE(source);
  CHECK(error.code == 3);
  CHECK(error.text.starts_with("here: "));
  CHECK(error.text.size() < 300);
  return error.text;
}

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("chat_template: strftime_now() is the time that is given") {
    std::tm now{};
    now.tm_mday = 3, now.tm_mon = 6, now.tm_year = 126;
    const std::string source =
        "{%- if strftime_now is defined %}{%- set date = strftime_now('%d %b %Y') %}{% endif %}Today is {{ date }}.";
    CHECK(written(source, Json::object(), now) == "Today is 03 Jul 2026.");
    CHECK(refused("{{ strftime_now('" + std::string(65, 'x') + "') }}").find("a short format") != std::string::npos);
    CHECK(refused("{{ strftime_now('') }}").find("a short format") != std::string::npos);
  }

  TEST_CASE("chat_template: what is reached and not read is refused by its name") {
    struct Row {
      const char *source, *part;
    };
    constexpr Row kRows[] = {
        {"{% include 'x' %}", "'{% include %}'"},
        {"{% raw %}x{% endraw %}", "'{% raw %}'"},
        {"{% for x in list %}{% break %}{% endfor %}", "'{% break %}'"},
        {"{% filter upper %}x{% endfilter %}", "'{% filter %}'"},
        {"{% set x | trim %} a {% endset %}", "'{% x | trim %}'"},
        {"{% macro f() %}x{% endmacro %}{{ f() }}", "function 'f'"},
        {"{% if text %}x", "no {% endif %}"},
        {"{% if text %}x{% else %}y{% elif text %}z{% endif %}", "'{% elif %}'"},
        {"x{% endif %}", "'{% endif %}'"},
        {"{% for x in text %}{% endfor %}", "no list"},
        {"{% for x, y in list %}{% endfor %}", "','"},
        {"{% set x.y = 1 %}", "'x' is no namespace"},
        {"{% set text.y = 1 %}", "'text' is no namespace"},
        {"{{ {'a': 1} }}", "'{'"},
        {"{{ text | tojson }}", "filter 'tojson'"},
        {"{{ text.title() }}", "method 'title'"},
        {"{{ text is odd }}", "test 'odd'"},
        {"{{ 1 * 2 }}", "'*'"},
        {"{{ list }}", "a list or an object"},
        {"{{ missing.member }}", "not defined"},
        {"{{ missing + 'x' }}", "'+' takes"},
        {"{{ list[::2] }}", "[::-1] alone"},
        {"{{ range(20000) }}", "'range'"},
        {"{{ raise_exception('Roles\nmust alternate') }}", "the template refuses: Roles"},
        {"{{ text", "'{{' without '}}'"},
        {"{% if text", "'{%' without '%}'"},
        {"{# text", "'{#' without '#}'"},
        {"{{ 'text }}", "closing quote"},
        {"{% if %}x{% endif %}", "ends where more"},
        {"{{ }}", "ends where more"},
        {"{%%}", "'{%  %}'"},
    };
    for (const Row& row : kRows) {
      const std::string text = refused(row.source);
      CAPTURE(text);
      CHECK(text.find(row.part) != std::string::npos);
    }
    CHECK(refused(repeated("{% if text %}", 40) + repeated("{% endif %}", 40)).find("deeper than 32") !=
          std::string::npos);
    CHECK(caught([] { ChatTemplate(std::string(70'000, 'x'), "here"); }).says("template of 70000 bytes"));
  }

  TEST_CASE("chat_template: no template takes memory or time without end") {
    const std::string loop = "{% for i in range(10000) %}";
    for (const std::string& source :
         {"{% set x = 'xxxxxxxxxxxxxxxx' %}" + repeated("{% set x = x + x %}", 60) + "{{ x }}",
          "{% set x = [1] %}" + repeated("{% set x = [x, x, x, x] %}", 60),
          "{% set n = namespace(x='a') %}" + loop + "{% set n.x = n.x ~ n.x %}{% endfor %}",
          "{% set n = namespace(x=[1]) %}" + loop + "{% set n.x = [n.x] %}{% endfor %}",
          repeated(loop, 5) + "x" + repeated("{% endfor %}", 5), repeated(loop, 5) + repeated("{% endfor %}", 5)}) {
      const std::string text = refused(source);
      CAPTURE(text);
      CHECK((text.find("too many steps") != std::string::npos || text.find("nests deeper than") != std::string::npos ||
             text.find("gives more than") != std::string::npos));
    }
  }
}

TEST_SUITE("golden") {
  TEST_CASE("chat_template: what transformers writes with the same templates") {
    const Json cases = Json::parse(slurp(COPPICE_SOURCE_DIR "/tests/tasks/chat_templates.json"));
    CHECK(cases.size() > 100);
    for (const Json& one : cases) {
      const std::string source = one.at("template").get<std::string>();
      CAPTURE(source);
      CHECK(written(source, one.at("variables")) == one.at("text").get<std::string>());
    }
  }
}
