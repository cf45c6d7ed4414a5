#include "src/corpus/run/corpus_rights.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/caught.h"
#include "tests/corpus/run/small_corpus.h"

using namespace coppice;
using namespace coppice::test;

namespace {

std::vector<std::string> names(const std::vector<SourceRights>& rights) {
  std::vector<std::string> names;
  for (const SourceRights& source : rights) names.push_back(source.source);
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("corpus rights: a path inside a corpus has those of its sources, wherever it points") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two"});
    corpus.add("b/1.jsonl", {"two three"});
    CorpusSettings settings = corpus.settings("{ kind = \"size\" }\n");
    settings.sources[1].stages = {"core"};
    settings.sources[1].license = "CC-BY-4.0";
    const fs::path root = corpus.scratch / "out";
    run_corpus(settings, corpus.request("out"));
    for (const fs::path& path : {root, root / "documents", root / "documents/"})
      CHECK(names(corpus_rights(path)) == Names{"a", "b"});
    CHECK(names(corpus_rights(root / "documents/a")) == Names{"a"});
    fs::create_directories(root / "domains/mine/b");
    CHECK(names(corpus_rights(root / "domains/mine")) == Names{"b"});
    CHECK(names(corpus_rights(root / "domains/mine/")) == Names{"b"});
    CHECK(names(corpus_rights(root / "domains/mine/b")) == Names{"b"});
    const std::vector<SourceRights> b = corpus_rights(root / "documents/b/1.jsonl.zst");
    REQUIRE(names(b) == Names{"b"});
    CHECK(b[0].license == "CC-BY-4.0");
    CHECK(b[0].stages == Names{"core"});
    CHECK(b[0].where == (root / "sources.json").string());
    CHECK(closed_to(b, "core") == nullptr);
    CHECK(closed_to(b, "long") == &b[0]);
    CHECK(corpus_rights(corpus.scratch / "in/a").empty());
    CHECK(corpus_rights("/").empty());

    spill(root / "sources.json", "{}");
    CHECK(caught([&] { corpus_rights(root); }).code == 3);
  }

  TEST_CASE("corpus rights: a corpus made of another's documents keeps within its stages") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two"});
    corpus.add("b/1.jsonl", {"two three"});
    CorpusSettings settings = corpus.settings("{ kind = \"size\" }\n");
    settings.sources[1].stages = {"core", "continued"};
    run_corpus(settings, corpus.request("out"));
    const auto refusal = [&](const std::string& path, const std::string& stages) {
      spill(corpus.scratch / "next.toml", fmt::format("[[data.source]]\nname = \"old\"\npath = \"{}\"\n{}",
                                                      (corpus.scratch / "out" / path).string(), stages));
      return caught([&] { load_corpus(corpus.scratch / "next.toml", {}, {}, kSmallSteps); });
    };
    const Caught open = refusal("documents/b", "");
    CHECK(open.code == 2);
    CHECK(open.says("next.toml:1: stages: source 'old' reads documents of the source 'b', allowed in core, continued"));
    CHECK(open.says("expected stages = [\"core\", \"continued\"], or fewer of them"));
    CHECK(refusal("", "stages = [\"core\", \"long\"]\n").says("next.toml:4: stages: "));
    CHECK(refusal("documents/*/1.jsonl.zst", "").code == 2);
    CHECK(refusal("", "stages = [\"core\"]\n").code == 0);
    CHECK(refusal("documents/a", "").code == 0);
  }

  TEST_CASE("corpus rights: rights that are none are refused") {
    const std::vector<SourceRights> rights = {{"a", "CC0-1.0", {}}, {"b", "unknown", {"core", "long"}}};
    const std::vector<SourceRights> read = read_rights(rights_json(rights), "here");
    CHECK(rights_json(read) == rights_json(rights));
    CHECK(read[1].where == "here");
    for (const char* damaged : {R"([1])", R"([{"name": "a"}])", R"([{"name": "a", "license": "x"}])",
                                R"([{"name": "a", "license": "x", "stages": [1]}])"}) {
      CAPTURE(damaged);
      CHECK(caught([&] { read_rights(Json::parse(damaged), "here"); }).code == 3);
    }
  }
}
