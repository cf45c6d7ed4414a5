// The step `maths`, before and behind the extraction.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "src/base/log.h"
#include "src/text/document_metadata.h"
#include "tests/caught.h"
#include "tests/corpus/steps/looked_at.h"

using namespace coppice;

namespace {

Document page_of(const std::string& html) { return {.id = "a", .text = html, .is_page = true}; }

/// A text of `symbols` symbols and 1,000 characters.
std::string text_with(int symbols) {
  std::string text;
  for (int i = 0; i < symbols; ++i) text += "\u2211";
  return text + std::string(static_cast<size_t>(1000 - symbols), 'a');
}

std::string dropped_by(const std::string& text, int templates, const std::string& options = "") {
  Document document{.id = "a", .text = text};
  if (templates >= 0) set_metadata(document, "maths_templates", templates);
  return look_at(*document_step("maths", options), document).first;
}

Document at(const std::string& url) {
  Document document{.id = "a", .text = text_with(20)};
  set_metadata(document, "url", url);
  return document;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("maths step: a page's marks are counted and go with it; mathematics.json") {
    const auto step = document_step("maths", "");
    const Json fixture = read_json(COPPICE_SOURCE_DIR "/tests/corpus/fixtures/mathematics.json");
    for (const Json& made : fixture["cases"]) {
      Document document = page_of(made["html"]);
      const Looked looked = look_at(*step, document);
      CHECK(looked.values.empty());
      CHECK(find_metadata(document, "maths_templates")->get<uint64_t>() == made["templates"].size());
      document.text = made["text"];
      document.is_page = false;
      CHECK(look_at(*step, document).values.at("symbols") == made["symbols"].get<double>());
      CHECK(find_metadata(document, "maths_symbols")->get<uint64_t>() == made["symbols"].get<uint64_t>());
    }
  }

  TEST_CASE("maths step: markup and symbols, or twice the symbols") {
    CHECK(dropped_by(text_with(5), 1) == "");
    CHECK(dropped_by(text_with(4), 1) == "symbols");
    CHECK(dropped_by(text_with(5) + std::string(1501, 'a'), 1) == "symbol_rate");
    CHECK(dropped_by(text_with(5) + std::string(1500, 'a'), 1) == "");
    CHECK(dropped_by(text_with(9), 0) == "templates");
    CHECK(dropped_by(text_with(10), 0) == "");
    CHECK(dropped_by(text_with(10), -1) == "");
    CHECK(dropped_by(text_with(9), -1) == "templates");
    CHECK(dropped_by(text_with(10) + std::string(1501, 'a'), 0) == "templates");
    CHECK(dropped_by("", 3) == "symbols");
    CHECK(dropped_by(text_with(5), 1, "min_templates = 2") == "templates");
    CHECK(dropped_by(text_with(5), 1, "min_symbols = 6") == "symbols");
    CHECK(dropped_by(text_with(9), 0, "without_templates = 1") == "");
  }

  TEST_CASE("maths step: lists of one's own") {
    const ScratchFolder folder;
    const auto templates = folder.write("templates.txt", "FORMULA\n"),
               symbols = folder.write("symbols.txt", "\\x\n\u00df\n");
    const auto step =
        document_step("maths", "templates = \"" + templates.string() + "\"\nsymbols = \"" + symbols.string() + "\"\n");
    Document document = page_of("<p>FORMULA MathJax.js");
    look_at(*step, document);
    CHECK(find_metadata(document, "maths_templates")->get<int>() == 1);
    Document text{.id = "a", .text = "\\x \\alpha \u00df"};
    CHECK(look_at(*step, text).values.at("symbols") == 2);
    CHECK(step->inputs() != document_step("maths", "")->inputs());
  }

  TEST_CASE("maths step: domains by label and by score") {
    const ScratchFolder folder;
    const auto file = folder.write("labels.tsv", "a.org\tmaths\nb.org\tshop\nc.org\tother\n");
    const std::string domains = "domains = \"" + file.string() + "\"\n";
    const int64_t before = num_warnings();
    const auto by_label = document_step("maths", domains), by_score = document_step("maths", domains + "score = \"m\"");
    CHECK(num_warnings() == before + 2);  // nobody keeps 'shop'
    document_step("maths", domains + "keep = [\"maths\", \"shop\"]");
    CHECK(num_warnings() == before + 2);
    for (const auto& [url, kept] : {std::pair("https://a.org/", true),
                                    {"https://x.a.org/", true},
                                    {"https://b.org/", false},
                                    {"https://c.org/", false},
                                    {"https://d.org/", false},
                                    {"", false}}) {
      Document document = at(url);
      CHECK_MESSAGE(look_at(*by_label, document).first == (kept ? "" : "domain"), url);
    }
    Document beside{.id = "a", .text = text_with(20), .fields = R"("url":"https://a.org/")"};
    CHECK(look_at(*by_label, beside).first == "");
    for (const auto& [score, rule] : {std::pair(0.5, ""), {0.49, "other_score"}}) {
      Document document = at("https://c.org/");
      document.scores = {{"m", score}};
      CHECK(look_at(*by_score, document).first == rule);
    }
    Document known = at("https://a.org/"), shop = at("https://b.org/"), unscored = at("https://d.org/");
    CHECK(look_at(*by_score, known).first == "");
    CHECK(look_at(*by_score, shop).first == "domain");
    CHECK(caught([&] { look_at(*by_score, unscored); }).says("score: got a document (a) without the score 'm'"));
    unscored.is_page = true;
    CHECK(look_at(*by_score, unscored).first == "");
  }

  TEST_CASE("maths step: options that cannot be meant") {
    const auto refused = [](const std::string& options) { return caught([&] { document_step("maths", options); }); };
    CHECK(refused("without_templates = 0.5").says("step.toml:1: without_templates: got 0.5, expected at least 1"));
    CHECK(refused("score = \"m\"").says("step.toml:1: score: got a score for unlabelled domains, expected `domains`"));
    CHECK(refused("symbols = \"/nowhere\"").code == 3);
  }
}
