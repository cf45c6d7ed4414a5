#include "src/tasks/text_template.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/caught.h"

using namespace coppice;

namespace {

const Json kDocument = Json::parse(R"({
  "question": "  Why?\n", "number": 7, "share": 0.5, "yes": true, "nothing": null, "text": "one two  three",
  "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B", "word": "\u00e4rger"})");

Json value(const char* source) { return TextTemplate(source, "task.yaml").value(kDocument, "line:1"); }
std::string refused(const char* source) {
  const Caught error = caught([&] { value(source); });
  CHECK(error.code == 3);
  return error.text;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("text_template: what Jinja 3.1 makes of the same templates") {
    CHECK(value("plain } text {x}") == "plain } text {x}");
    CHECK(value("") == "");
    CHECK(value("Question: {{question.strip()}}\nAnswer:") == "Question: Why?\nAnswer:");
    CHECK(value("{{text.split(' ')[:-1]|join(' ')}}") == "one two ");
    CHECK(value("{{' '+text.split(' ')[-1]}}") == " three");
    CHECK(value("{{choices.label.index(answerKey)}}") == 1);
    CHECK(value("{{choices['text'][0]}}-{{ choices.text[-1] }}") == "a-b");
    CHECK(value("{{[number, 'x', answerKey]}}") == Json::array({7, "x", "B"}));
    CHECK(value("{{[]}}") == Json::array());
    CHECK(value("{{number + 1}}") == 8);
    CHECK(value("{{number ~ '!'}}") == "7!");
    CHECK(value("{{number}}{{yes}}{{nothing}}{{share}}") == "7TrueNone0.5");
    CHECK(value("{{text|length}} {{choices.text|length}} {{word|length}}") == "14 2 5");
    CHECK(value("{{word.capitalize() ~ 'ABC' | lower}}") == "\u00c4rgerabc");
    CHECK(value("{{word[0]}}{{word[1:3]}}") == "\u00e4rg");
    CHECK(value("{{question.lstrip()|trim|replace('y', 'o')}}") == "Who?");
    CHECK(value("{{missing if missing is defined else 'none'}}") == "none");
    CHECK(value("{{number if number is defined else missing}}") == 7);
    CHECK(value("{{'a' if number > 6 and nothing is none else 'b'}}") == "a");
    CHECK(value("{{choices.label[number - 6]}}") == "B");
    CHECK(value(R"({{"it's\n" + '\'"'}})") == "it's\n'\"");
  }

  TEST_CASE("text_template: what is not read is refused by its name, with the file") {
    CHECK(refused("{% if x %}").find("task.yaml") != std::string::npos);
    CHECK(refused("{% if x %}").find("'{%'") != std::string::npos);
    CHECK(refused("{{- x }}").find("'{{-'") != std::string::npos);
    CHECK(refused("{{ x | tojson }}").find("filter 'tojson'") != std::string::npos);
    CHECK(refused("{{ text.title() }}").find("method 'title'") != std::string::npos);
    CHECK(refused("{{ text.split() }}").find("takes 1 arguments here, got 0") != std::string::npos);
    CHECK(refused("{{ number * 2 }}").find("'*'") != std::string::npos);
    CHECK(refused("{{ number is odd }}").find("test 'odd'") != std::string::npos);
    CHECK(refused("{{ text").find("without '}}'") != std::string::npos);
    CHECK(refused("{{ 'text }}").find("closing quote") != std::string::npos);
    CHECK(refused("{{ }}").find("ends where more") != std::string::npos);
    CHECK(refused(("{{" + std::string(5000, '(') + "1" + std::string(5000, ')') + "}}").c_str()).find("deeper") !=
          std::string::npos);
    CHECK(refused(("{{text" + std::string(5000, '.') + "}}").c_str()) != "");
    std::string many = "{{text";
    for (int i = 0; i < 300; ++i) many += "+text";
    CHECK(refused((many + "}}").c_str()).find("more than 256 parts") != std::string::npos);
    CHECK(caught([] { TextTemplate(std::string(70000, 'x'), "task.yaml"); }).code == 3);
  }

  TEST_CASE("text_template: a small template makes no huge text") {
    const Json document = {{"x", std::string(size_t{1} << 20, 'x')}};
    std::string pieces, list = "{{[x";
    for (int i = 0; i < 100; ++i) pieces += "{{x}}";
    for (int i = 0; i < 100; ++i) list += ",x";
    const std::string wide = "'" + std::string(1000, 'y') + "'";
    for (const std::string& source : {pieces, list + "]|join('')}}", "{{x|replace('x', " + wide + ")}}"}) {
      const Caught error = caught([&] { TextTemplate(source, "task.yaml").value(document, "line:1"); });
      CHECK(error.code == 3);
      CHECK(error.says("line:1: a template gives more than"));
    }
  }

  TEST_CASE("text_template: what a document lacks is refused with its line") {
    for (const char* source : {"{{missing}}", "{{choices.none}}", "{{choices.text[2]}}", "{{choices.label.index('Z')}}",
                               "{{number.strip()}}", "{{choices.text}} and", "{{number + 'x'}}", "{{number[0]}}"}) {
      INFO(std::string(source));
      CHECK(refused(source).find("line:1") != std::string::npos);
    }
  }
}
