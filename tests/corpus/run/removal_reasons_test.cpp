// What removed/ says of a document beyond the rule and its value, where a value of 1 says nothing.
#include <doctest/doctest.h>

#include "tests/caught.h"
#include "tests/corpus/run/real_steps.h"

using namespace coppice;
using test::RealCorpus;

namespace {

constexpr const char* kEnglish = "The committee met on Tuesday to discuss how the new library should be paid for.";
constexpr const char* kFrench = "Le comité s'est réuni mardi pour discuter du financement de la nouvelle bibliothèque.";

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("removed: which language it was, by a rule that is one for all of them") {
    const RealCorpus corpus;
    corpus.add("web", "1", {{"en", kEnglish}, {"fr", kFrench}, {"none", "1 2 3"}});
    corpus.run("[[data.step]]\nkind = \"language\"\nkeep = { en = 0.65, de = 0.5 }\n");
    CHECK(corpus.kept() == std::set<std::string>{"en"});
    const auto removed = corpus.removed("language");
    CHECK(removed.at("fr")["rule"] == "other_language");
    CHECK(removed.at("fr")["language"] == "fr");
    CHECK(removed.at("fr")["language_score"].get<double>() > 0.9);
    CHECK(removed.at("none")["language"] == "un");
    CHECK(removed.at("none")["language_score"] == 0.0);
    corpus.run("[[data.step]]\nkind = \"language\"\nkeep = { en = 1.0 }\n", "strict");
    const auto strict = corpus.removed("language", "strict");
    CHECK(strict.at("en")["rule"] == "en_score");
    CHECK(strict.at("en")["language"] == "en");
    const Json report = read_sealed(corpus.scratch / "out/report.json", "coppice.corpus", 1);
    CHECK(report["steps"][0]["rules"].size() == 3);  // one row for all other languages
  }

  TEST_CASE("removed: too much personal data, by the kind of source that it comes from") {
    const RealCorpus corpus;
    const std::string six = "{\"text\":\"a@b.example c@d.example e@f.example g@h.example i@j.example k@l.example\"}\n";
    std::string sources = "[data]\n";
    for (const auto& [name, rights] : {std::pair("crawl", ""), {"press", "license = \"LicenseRef-press\"\n"}}) {
      const auto file = corpus.scratch / ("in/" + std::string(name) + ".jsonl");
      spill(file, six);
      sources += fmt::format("[[data.source]]\nname = \"{}\"\npath = \"{}\"\n{}", name, file.string(), rights);
    }
    const auto run = [&](const std::string& out, const std::string& options) {
      spill(corpus.scratch / "corpus.toml", sources + "[[data.step]]\nkind = \"pii\"\n" + options);
      run_corpus(load_corpus(corpus.scratch / "corpus.toml", {}, {}), {.out = corpus.scratch / out});
    };
    run("out", "");
    CHECK(corpus.kept() == std::set<std::string>{"press/press.jsonl#1"});
    CHECK(corpus.removed("pii").at("crawl/crawl.jsonl#1")["rule"] == "spans");
    run("other", "max_spans = 0\nmax_licensed_spans = 5\n");
    CHECK(corpus.kept("other") == std::set<std::string>{"crawl/crawl.jsonl#1"});
    CHECK(corpus.removed("pii", "other").at("press/press.jsonl#1")["rule"] == "licensed_spans");
  }

  TEST_CASE("removed: which licence it was, of texts and of source files") {
    const RealCorpus corpus;
    const std::string by_nc = "https://creativecommons.org/licenses/by-nc/4.0/";
    spill(corpus.scratch / "in/web/1.jsonl",
          nlohmann::json({{"id", "nc"}, {"text", "a"}, {"metadata", {{"license", by_nc}}}}).dump() + "\n" +
              nlohmann::json({{"id", "none"}, {"text", "b"}}).dump() + "\n");
    corpus.run("[[data.step]]\nkind = \"licences\"\nallow = [\"CC-BY-4.0\"]\n");
    CHECK(corpus.removed("licences").at("nc")["licences"] == nlohmann::json({"CC-BY-NC-4.0"}));
    CHECK_FALSE(corpus.removed("licences").at("none").contains("licences"));

    const RealCorpus code;
    const std::string text = "// SPDX-License-Identifier: GPL-2.0-only\nint main() { return 0; }\n";
    spill(code.scratch / "in/code/1.jsonl",
          nlohmann::json({{"id", "gpl"}, {"text", text}, {"path", "a/b.c"}}).dump() + "\n" +
              nlohmann::json({{"id", "pl"}, {"text", text}, {"path", "a/b.java"}}).dump() + "\n" +
              nlohmann::json({{"id", "sql"}, {"text", text}, {"path", "a/b.sql"}}).dump() + "\n");
    code.run("[[data.step]]\nkind = \"code\"\nlanguages = [\"C\"]\n");
    CHECK(code.removed("code").at("gpl")["rule"] == "licence");
    CHECK(code.removed("code").at("gpl")["licences"] == nlohmann::json({"GPL-2.0-only"}));
    CHECK(code.removed("code").at("pl")["rule"] == "language");
    CHECK(code.removed("code").at("pl")["language"] == "Java");
    CHECK_FALSE(code.removed("code").at("sql").contains("language"));
  }

  TEST_CASE("removed: a rule that is called as no file or column can be is refused") {
    const RealCorpus corpus;
    corpus.add("web", "1", {{"a", kEnglish}});
    const auto refusal = [&](const std::string& rule) {
      return caught([&] { corpus.settings("[[data.step]]\nkind = \"words\"\nrule = \"" + rule + "\"\n"); });
    };
    CHECK(refusal("").says("name: got '', expected a rule's name"));
    CHECK(refusal("a/b").says("name: got 'a/b', expected a rule's name"));
    CHECK(refusal("trade").code == 0);
    CHECK(corpus.settings("[[data.step]]\nkind = \"words\"\nrule = \"trade\"\nname = \"w\"\n").steps[0].name == "w");
    const auto fingerprint = [&](const std::string& rule) {
      return corpus.settings("[[data.step]]\nkind = \"words\"\nrule = \"" + rule + "\"\n").steps[0].fingerprint;
    };
    CHECK(fingerprint("one") != fingerprint("two"));
  }
}
