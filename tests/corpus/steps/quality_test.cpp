// The step `quality`.
#include <doctest/doctest.h>

#include <cmath>

#include "src/text/document_metadata.h"
#include "tests/corpus/step_of.h"

#include <nlohmann/json.hpp>

using namespace coppice;
using test::refusal_of_step;
using test::step_of;

namespace {

struct Looked {
  Document document;
  std::vector<Rule> rules;
  std::vector<double> values;
  bool changed = false;
  std::string dropped_by;  // the first rule
  double value(const std::string& name) const {
    for (size_t i = 0; i < rules.size(); ++i)
      if (rules[i].name == name) return values[i];
    throw std::runtime_error("no rule " + name);
  }
};

Looked look(const Step& step, const std::string& text, bool all = true, const std::string& metadata = "") {
  Looked looked{.document = {.id = "1", .source = "s", .text = text, .metadata = metadata}, .rules = step.rules()};
  looked.values.assign(looked.rules.size(), std::nan(""));
  looked.changed = dynamic_cast<const DocumentStep&>(step).start()->look(looked.document, looked.values, all);
  for (size_t i = 0; i < looked.rules.size() && looked.dropped_by.empty(); ++i)
    if (looked.rules[i].drops(looked.values[i])) looked.dropped_by = looked.rules[i].name;
  return looked;
}

const std::string kProse =
    "The old miller walked to the harbour and the river was quiet.\n"
    "A baker with a small wagon came by at noon to sell bread.\n"
    "They have talked of the weather, that was to be expected.\n"
    "In the evening the bell of the village rang and all went home.\n"
    "Nobody could say where the lantern of the pilot had been left.\n";

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("quality step: prose stays as it is, what is empty goes first") {
    const ScratchFolder scratch;
    const auto step = step_of(scratch, "kind = \"quality\"");
    CHECK(step->rules().size() == 1 + 13 + 8 + 3 + 4);
    const Looked prose = look(*step, kProse.substr(0, kProse.size() - 1));
    CHECK(prose.dropped_by == "");
    CHECK_FALSE(prose.changed);
    CHECK(prose.value("sentences") == 5);
    CHECK(prose.value("words") == 61);
    for (const char* empty : {"", " \n\t\u00a0"}) {
      const Looked looked = look(*step, empty);
      CHECK(looked.dropped_by == "empty");
      CHECK(std::isnan(looked.value("words")));
    }
  }

  TEST_CASE("quality step: lines that C4 takes out are gone for the rules behind it alone") {
    const ScratchFolder scratch;
    const auto after = step_of(scratch, "kind = \"quality\"\nrules = [\"c4\", \"fineweb\"]");
    const Looked cut = look(*after, kProse + "Menu\nHome\nAbout\n");
    CHECK(cut.changed);
    CHECK(cut.document.text == kProse.substr(0, kProse.size() - 1));
    CHECK(cut.value("line_punct_ratio") == 1.0);
    const auto before = step_of(scratch, "kind = \"quality\"\nrules = [\"fineweb\", \"c4\"]");
    CHECK(look(*before, kProse + "Menu\nHome\nAbout\n").value("line_punct_ratio") == 5.0 / 8);
    const auto kept = step_of(scratch, "kind = \"quality\"\nrules = [\"c4\"]\nterminal = false\nfewest_line_words = 1");
    CHECK(look(*kept, kProse + "Menu").document.text == kProse + "Menu");
    const auto none = step_of(scratch, "kind = \"quality\"\nrules = [\"c4\"]\nsentences = 0");
    CHECK(look(*none, "Menu\nHome").dropped_by == "empty");
  }

  TEST_CASE("quality step: with `all`, rules behind one that drops measure what they would without it") {
    const ScratchFolder scratch;
    const std::string lines = kProse + "Menu\nHome\nAbout\n", left = kProse.substr(0, kProse.size() - 1),
                      sets = "kind = \"quality\"\nrules = [\"gopher_quality\", \"c4\", \"fineweb\"]\n";
    const auto strict = step_of(scratch, sets + "min_words = 1000"), lenient = step_of(scratch, sets);
    const Looked all = look(*strict, lines), first = look(*strict, lines, false), stays = look(*lenient, lines);
    CHECK(all.dropped_by == "words");
    CHECK(first.dropped_by == "words");
    CHECK(all.document.text == left);
    CHECK(all.values == stays.values);
    CHECK(all.value("line_punct_ratio") == 1.0);
    CHECK(first.document.text == lines);
    CHECK(std::isnan(first.value("line_punct_ratio")));
    // So do rules behind one of C4's own, whichever it is; where no line is left there is nothing to measure.
    const auto c4 = step_of(scratch, "kind = \"quality\"\nrules = [\"c4\", \"fineweb\"]\nsentences = 100");
    CHECK(look(*c4, lines).dropped_by == "sentences");
    CHECK(look(*c4, lines).document.text == left);
    const auto usual = step_of(scratch, "kind = \"quality\"\nrules = [\"c4\", \"fineweb\"]");
    for (const auto& [line, rule] : {std::pair("We are {all} here to say so.\n", "curly_bracket"),
                                     std::pair("Here lorem ipsum is said.\n", "lorem_ipsum")}) {
      const Looked looked = look(*usual, line + lines);
      CHECK(looked.dropped_by == rule);
      CHECK(looked.document.text == line + left);
      CHECK(looked.value("line_punct_ratio") == 1.0);
      CHECK(std::isnan(looked.value("sentences")));
      CHECK(look(*usual, line + lines, false).document.text == line + lines);
    }
    const Looked none = look(*usual, "Menu\nHome\n");
    CHECK(none.dropped_by == "sentences");
    CHECK(none.value("empty") == 0);
    CHECK(std::isnan(none.value("list_ratio")));
  }

  TEST_CASE("quality step: limits by name, words by rule and language, lists") {
    const ScratchFolder scratch;
    const auto lenient =
        step_of(scratch, "kind = \"quality\"\nrules = [\"gopher_quality\"]\nmin_words = 3\nstop_words = 0");
    CHECK(look(*lenient, "Three words here").dropped_by == "");
    CHECK(look(*lenient, "Two words").dropped_by == "words");
    const auto words = step_of(scratch, "kind = \"quality\"\nrules = [\"gopher_quality\"]");
    CHECK(look(*words, "don't 東京", true).value("words") == 3);
    CHECK(look(*words, "don't 東京", true, R"("language":"ja")").value("words") == 3);
    CHECK(look(*words, "isn 東京", true, R"("language":"ja")").value("words") == 3);
    const auto white = step_of(scratch, "kind = \"quality\"\nrules = [\"gopher_quality\"]\nwords = \"whitespace\"");
    CHECK(look(*white, "don't 東京", true).value("words") == 2);
    spill(scratch / "domains", "example.com\n");
    const auto url = step_of(
        scratch, "kind = \"quality\"\nrules = [\"url\"]\nurl_domains = \"" + (scratch / "domains").string() + "\"");
    CHECK(url->inputs().size() == 1);
    CHECK(look(*url, "x", true, R"("url":"https://a.example.com/")").dropped_by == "url_domain");
    CHECK(look(*url, "x", true, R"("url":"https://example.org/")").dropped_by == "");
    CHECK(look(*url, "x").dropped_by == "");
    Document beside{.id = "1", .text = "x", .fields = R"("url":"https://a.example.com/")"};
    std::vector<double> values(url->rules().size(), std::nan(""));
    dynamic_cast<const DocumentStep&>(*url).start()->look(beside, values, true);
    CHECK(values[1] == 1);
  }

  TEST_CASE("quality step: what it refuses") {
    const ScratchFolder scratch;
    const auto refusal = [&](const std::string& options) {
      return refusal_of_step(scratch, "kind = \"quality\"\n" + options);
    };
    CHECK(refusal("rules = [\"gofer\"]")
              .ends_with("my.toml:3: rules: got 'gofer', expected some of gopher_repetition, gopher_quality, c4, "
                         "fineweb, dclm_lines, "
                         "ratios, url"));
    CHECK(refusal("rules = []").ends_with("my.toml:3: rules: got none, expected at least one"));
    CHECK(refusal("rules = [\"c4\", \"c4\"]").ends_with("my.toml:3: rules: got 'c4' twice, expected it once"));
    CHECK(refusal("words = \"uax29\"")
              .ends_with("my.toml:3: words: got 'uax29', expected auto, english, peeled or whitespace"));
    CHECK(refusal("min_words = 10\nmax_words = 5").ends_with("words: got 10 to 5, expected limits in ascending order"));
    CHECK(refusal("rules = [\"url\"]")
              .ends_with("rules: got 'url' without url_domains and url_words, expected at least one list"));
  }
}
