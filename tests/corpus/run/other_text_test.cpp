// Pages that two readers read differently: the second text goes on where a step behind drops the first.
#include <doctest/doctest.h>

#include "tests/corpus/run/real_steps.h"

using namespace coppice;
using test::RealCorpus;

namespace {

/// 37 words.
std::string prose(const std::string& name) {
  return "<p>" + name +
         " tells in a sentence of some length what happened on that day in the harbour, and goes on to say why nobody "
         "who was there had expected the ship to sail before the storm was over.</p>";
}

/// `inside` paragraphs of an article, and `beside` that reader mode takes for none of it.
std::string page(int inside, int beside) {
  std::string html = "<div><div id=a>";
  for (int i = 0; i < inside; ++i) html += prose("Inside" + std::to_string(i));
  html += "</div><div class=sidebar>";
  for (int i = 0; i < beside; ++i) html += prose("Beside" + std::to_string(i));
  return html + "</div></div>";
}

std::string steps(const std::string& join) {
  return "[[data.step]]\nkind = \"extract\"\njoin = \"" + join +
         "\"\n[[data.step]]\nkind = \"quality\"\nrules = [\"gopher_quality\"]\nwords = \"whitespace\"\n"
         "min_words = 150\n[[data.step]]\nkind = \"language\"\n";
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("other text: it stays where the first does not, and each document is counted once") {
    const RealCorpus corpus;
    const std::map<std::string, std::string> pages = {
        {"good", page(5, 2)}, {"gained", page(3, 2)}, {"poor", page(3, 1)}, {"same", page(2, 0)}};
    for (const auto& [name, html] : pages) spill(corpus.scratch / ("in/web/" + name + ".html"), html);
    corpus.run(steps("reader"), "reader");
    CHECK(corpus.kept("reader") == std::set<std::string>{"web/good.html"});
    corpus.run(steps("either"));
    CHECK(corpus.kept() == std::set<std::string>{"web/gained.html", "web/good.html"});
    for (const nlohmann::json& document : RealCorpus::lines_below(corpus.scratch / "out/documents")) {
      const bool has_other = document["text"].get<std::string>().find("Beside") != std::string::npos;
      CHECK(has_other == (document["id"] == "web/gained.html"));
      CHECK(document["metadata"]["language"] == "en");
    }
    const auto removed = corpus.removed("quality");
    CHECK(removed.size() == 2);
    CHECK(removed.at("web/poor.html")["value"] == 3 * 37);  // as the first text was
    const Json report = read_sealed(corpus.scratch / "out/report.json", "coppice.corpus", 1);
    const auto documents = [&](size_t step, const char* what) {
      return report["steps"][step][what]["documents"].get<int>();
    };
    CHECK(documents(0, "seen") == 4);
    CHECK(documents(0, "kept") == 4);
    CHECK(documents(1, "seen") == 4);
    CHECK(documents(1, "kept") == 2);
    CHECK(report["steps"][1]["measured"] == 4);
    CHECK(report["steps"][1]["kept"] == report["steps"][2]["seen"]);
    for (const Json& row : report["steps"][1]["rules"])
      if (row["rule"] == "words")
        for (const char* count : {"first", "alone", "would"}) CHECK(row[count]["documents"] == 2);
  }
}
