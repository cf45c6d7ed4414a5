// The step `extract`.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "src/text/document_metadata.h"
#include "tests/corpus/step_of.h"

using namespace coppice;
using test::refusal_of_step;
using test::step_of;

namespace {

struct Looked {
  Document document;
  std::string drops;  // the first rule that does
  double value = 0;   // of that rule
  bool changed = false;
};

Looked look(const ScratchFolder& scratch, const std::string& options, Document document) {
  const auto step = std::dynamic_pointer_cast<const DocumentStep>(step_of(scratch, "kind = \"extract\"\n" + options));
  Looked looked{.document = std::move(document)};
  const std::vector<Rule> rules = step->rules();
  std::vector<double> values(rules.size(), std::numeric_limits<double>::quiet_NaN());
  looked.changed = step->start()->look(looked.document, values, true);
  for (size_t i = 0; i < rules.size() && looked.drops.empty(); ++i)
    if (rules[i].drops(values[i])) {
      looked.drops = rules[i].name;
      looked.value = values[i];
    }
  return looked;
}

Document page(const std::string& body, const std::string& head = "<title>A title</title>") {
  return {.id = "1",
          .source = "crawl",
          .text = "<html><head>" + head + "</head><body>" + body + "</body></html>",
          .is_page = true};
}

const std::string kProse =
    "A sentence of some length tells what happened in the harbour on that day, and goes on until nobody who reads it "
    "can doubt that this is the article, which is what the step looks for in a page that holds little else.";

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("extract: a page becomes its title and text, and tells where and when") {
    const ScratchFolder scratch;
    const Looked looked = look(scratch, "",
                               page("<nav><a href=/>Home</a></nav><p>" + kProse + "</p>",
                                    "<title>A title</title><meta name=date content=2020-02-03><link "
                                    "rel=canonical href=http://example.com/a>"));
    CHECK(looked.changed);
    CHECK(looked.drops.empty());
    CHECK(looked.document.text == "A title\n\n" + kProse);
    CHECK_FALSE(looked.document.is_page);
    CHECK(metadata_text(looked.document, "title") == "A title");
    CHECK(metadata_text(looked.document, "date") == "2020-02-03");
    CHECK(metadata_text(looked.document, "url") == "http://example.com/a");
    CHECK_FALSE(find_metadata(looked.document, "replaced_characters").has_value());
  }

  TEST_CASE("extract: title and text are composed (NFC)") {
    const ScratchFolder scratch;
    const Looked looked = look(scratch, "", page("<p>" + kProse + " Cafe\u0301</p>", "<title>Cafe\u0301</title>"));
    CHECK(looked.document.text == "Caf\u00e9\n\n" + kProse + " Caf\u00e9");
    CHECK(metadata_text(looked.document, "title") == "Caf\u00e9");
  }

  TEST_CASE("extract: what the source knows of a page stays") {
    const ScratchFolder scratch;
    Document document = page("<p>" + kProse + "\xEF\xBF\xBD</p>", "<meta property=og:url content=http://b.example>");
    set_metadata(document, "url", "http://a.example/");
    const Looked looked = look(scratch, "", document);
    CHECK(looked.document.text == kProse + "\xEF\xBF\xBD");
    CHECK(metadata_text(looked.document, "url") == "http://a.example/");
    CHECK(find_metadata(looked.document, "replaced_characters") == Json(1));
    Document beside = page("<p>" + kProse + "</p>", "<meta property=og:url content=http://b.example>");
    beside.fields = R"("url":"http://a.example/")";
    CHECK(look(scratch, "", beside).document.metadata.empty());
  }

  TEST_CASE("extract: what is no page passes unchanged") {
    const ScratchFolder scratch;
    const Looked looked = look(scratch, "", {.id = "1", .text = "<p>a < b"});
    CHECK_FALSE(looked.changed);
    CHECK(looked.drops.empty());
    CHECK(looked.document.text == "<p>a < b");
  }

  TEST_CASE("extract: pages go by the rule that holds, with its value") {
    const ScratchFolder scratch;
    std::string deep;
    for (int i = 0; i < 600; ++i) deep += "<div>";
    CHECK(look(scratch, "", page(deep)).drops == "too_deep");
    std::string large;
    for (int i = 0; i < 1'000'001; ++i) large += "<br>";
    CHECK(look(scratch, "", page(large)).drops == "too_large");
    const std::string robots = "<meta name=robots content=noindex>";
    CHECK(look(scratch, "", page("<p>" + kProse, robots)).drops == "opt_out");
    CHECK(look(scratch, "opt_out = false\n", page("<p>" + kProse, robots)).drops.empty());
    CHECK(look(scratch, "", page("")).drops == "empty");
    CHECK(look(scratch, "", page("<p>Not much.</p>")).drops == "short");
    const std::string few = "Not much, though it is a paragraph.";
    const Looked brief = look(scratch, "", page("<p>" + few + "</p>"));
    CHECK(brief.drops == "short");
    CHECK(brief.value == few.size());
    CHECK(look(scratch, fmt::format("min_length = {}\n", few.size()), page("<p>" + few + "</p>")).drops.empty());
  }

  TEST_CASE("extract: with join = either, the text of the other reader is there where the two differ") {
    const ScratchFolder scratch;
    const auto other_of = [&](const std::string& options, Document document) {
      const auto step =
          std::dynamic_pointer_cast<const DocumentStep>(step_of(scratch, "kind = \"extract\"\n" + options));
      std::vector<double> values(step->rules().size());
      const auto look = step->start();
      look->look(document, values, true);
      const std::optional<Document> other = look->other();
      CHECK_FALSE(look->other().has_value());
      return std::pair(document.text, other ? other->text : "none");
    };
    const std::string paragraph = "<p>" + kProse + "</p>",
                      article = "<div id=a>" + paragraph + paragraph + paragraph + "</div>",
                      text = kProse + "\n\n" + kProse + "\n\n" + kProse, both = text + "\n\nAside: " + kProse,
                      either = "join = \"either\"\n", none = "none";
    const Document split = page("<div>" + article + "<div class=sidebar><p>Aside: " + kProse + "</p></div></div>", "");
    const auto least = [&](size_t length) { return fmt::format("{}min_length = {}\n", either, length); };
    CHECK(other_of(either, split) == std::pair(text, both));
    CHECK(other_of("", split) == std::pair(text, none));
    CHECK(other_of(either, page("<div>" + article + "</div>", "")) == std::pair(text, none));
    CHECK(other_of(least(text.size()), split) == std::pair(text, both));
    CHECK(other_of(least(text.size() + 1), split) == std::pair(both, none));
    CHECK(other_of(least(both.size() + 1), split) == std::pair(text, none));
    CHECK(other_of(either, {.text = "no page"}) == std::pair(std::string("no page"), none));
  }

  TEST_CASE("extract: options") {
    const ScratchFolder scratch;
    const std::string math = "<p>" + kProse + " <script type='math/tex'>x^2</script></p>";
    CHECK(look(scratch, "", page(math, "")).document.text == kProse + " $x^2$");
    CHECK(look(scratch, "formulas = false\n", page(math, "")).document.text == kProse);
    const std::string comments = "<div><p>" + kProse + "</p><p>" + kProse + "</p><p>" + kProse +
                                 "</p><div id='disqus_body'><p>Readers: " + kProse + "</p></div></div>";
    CHECK(look(scratch, "", page(comments)).document.text.find("Readers") == std::string::npos);
    CHECK(look(scratch, "comments = true\n", page(comments)).document.text.find("Readers") != std::string::npos);
    for (const std::string join : {"reader", "boilerpipe", "intersection", "union"})
      CHECK_MESSAGE(look(scratch, "join = \"" + join + "\"\n", page("<p>" + kProse, "")).document.text == kProse, join);
    CHECK(refusal_of_step(scratch, "kind = \"extract\"\njoin = \"neither\"\n")
              .ends_with("my.toml:3: join: got 'neither', expected reader_or_boilerpipe, reader, boilerpipe, "
                         "intersection, union or either"));
    CHECK(refusal_of_step(scratch, "kind = \"extract\"\nmin_length = -1\n")
              .ends_with("my.toml:3: min_length: got -1, expected at least 0"));
  }
}
