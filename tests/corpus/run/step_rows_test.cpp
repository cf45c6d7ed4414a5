// Steps that compare documents, one right behind the other: each decides by what those in front of it leave.
#include <doctest/doctest.h>

#include "tests/corpus/run/real_steps.h"

using namespace coppice;
using test::RealCorpus;

namespace {

using Ids = std::set<std::string>;

/// `count` words of nine letters from the `first` on, none of which stands anywhere else.
std::string words(uint64_t first, uint64_t count) {
  std::string text;
  for (uint64_t number = first; number < first + count; ++number) {
    if (number > first) text += ' ';
    uint64_t bits = number * 0x9e3779b97f4a7c15;
    for (int i = 0; i < 9; ++i, bits /= 26) text += static_cast<char>('a' + bits % 26);
  }
  return text;
}

const std::string kItem = "who climbed the largest known volcano in the whole of the solar system first";

std::string decontaminate(const RealCorpus& corpus, const std::string& options = "") {
  spill(corpus.scratch / "quiz.jsonl", nlohmann::json({{"text", kItem}}).dump() + "\n");
  return fmt::format("[[data.step]]\nkind = \"decontaminate\"\nbenchmarks = \"{}\"\n{}",
                     (corpus.scratch / "quiz.jsonl").string(), options);
}

constexpr const char* kDedup = "[[data.step]]\nkind = \"dedup\"\nbands = 112\nrows = 1\n";

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("rows: nothing is a copy of a document that goes before") {
    const RealCorpus corpus;
    corpus.add("a", "1", {{"held", words(0, 100) + " " + kItem + " " + words(100, 100)}, {"other", words(900, 50)}});
    corpus.add("a", "2", {{"near", words(0, 200)}, {"exact", words(0, 200)}});
    corpus.run(decontaminate(corpus) + kDedup);
    CHECK(corpus.kept() == Ids{"near", "other"});
    CHECK(corpus.removed("decontaminate").contains("held"));
    CHECK(corpus.removed("dedup").at("exact")["kept_id"] == "near");
    const auto clusters = RealCorpus::lines_below(corpus.scratch / "out/stats/groups/dedup");
    CHECK(clusters.size() == 2);
    corpus.run(kDedup + decontaminate(corpus), "turned");  // of the copies the held one stays, and goes then
    CHECK(corpus.kept("turned") == Ids{"other"});
  }

  TEST_CASE("rows: a passage is cut out, and whether anything is left decides as well") {
    const RealCorpus corpus;
    const std::string held = words(0, 19) + " " + kItem + " " + words(19, 19);  // 200 characters on both sides go
    corpus.add("a", "1", {{"emptied", held}, {"longer", held + " " + words(100, 10)}, {"other", words(900, 50)}});
    corpus.run(decontaminate(corpus, "action = \"span\"\n") + kDedup);
    CHECK(corpus.kept() == Ids{"longer", "other"});
    CHECK(corpus.removed("decontaminate").at("emptied")["rule"] == "nothing_left");
    CHECK(corpus.removed("dedup").empty());
  }

  TEST_CASE("rows: a line is counted, and has its first place, among documents that are left") {
    const std::string line = words(500, 30), paragraphs = "[[data.step]]\nkind = \"paragraphs\"\nmax_lost = 0.9\n";
    const auto text_of = [](const RealCorpus& corpus, const std::string& id) -> std::string {
      for (const nlohmann::json& document : RealCorpus::lines_below(corpus.scratch / "out/documents"))
        if (document["id"] == id) return document["text"];
      return "none";
    };
    const RealCorpus corpus;
    const std::string body = words(0, 200);
    corpus.add("a", "1", {{"short", line + "\n" + body}, {"long", line + "\n" + body + " " + words(200, 9)}});
    corpus.add("a", "2", {{"second", line + "\n" + words(300, 40)}, {"third", line + "\n" + words(400, 40)}});
    corpus.run(std::string(kDedup) + "keep = \"longest\"\n" + paragraphs);
    CHECK(corpus.kept() == Ids{"long", "second", "third"});
    CHECK(text_of(corpus, "long").starts_with(line));
    CHECK(text_of(corpus, "second") == words(300, 40));
    CHECK(text_of(corpus, "third") == words(400, 40));

    const RealCorpus few;
    few.add("a", "1",
            {{"one", line + "\n" + body}, {"copy", line + "\n" + body}, {"two", line + "\n" + words(300, 40)}});
    few.run(kDedup + paragraphs);
    CHECK(few.kept() == Ids{"one", "two"});
    CHECK(text_of(few, "two").starts_with(line));  // it stands in two documents, not in three
  }
}
