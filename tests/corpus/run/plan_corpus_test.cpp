// What a corpus will cost: estimates from samples that can be counted by hand, and what cannot fit.
#include "src/corpus/run/plan_corpus.h"

#include <doctest/doctest.h>

#include "tests/caught.h"
#include "tests/corpus/run/real_steps.h"
#include "tests/corpus/run/small_corpus.h"

namespace coppice {
namespace {

using namespace test;

constexpr const char* kSteps = "{ kind = \"size\" }, { kind = \"same\" }, { kind = \"plain\", only = [\"b\"] }\n";

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("corpus plan: small sources are counted, large ones estimated from their first thousand documents") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two", "abc", "12345"});
    corpus.add("a/2.jsonl", {"three"});
    std::vector<std::string> texts(5000, std::string(200, 'x'));
    for (size_t i = 0; i < texts.size(); i += 2) texts[i] = "ab" + std::string(198, ' ');
    corpus.add("b/3.jsonl", texts);
    const CorpusRequest request = corpus.request("out");
    const CorpusPlan plan = plan_corpus(corpus.settings(kSteps, "values = \"none\""), request);
    REQUIRE(plan.sources.size() == 2);
    CHECK(plan.sources[0].files == 2);
    CHECK(plan.sources[0].documents == 4);
    CHECK(plan.sources[0].text_bytes == 20);
    CHECK(plan.sources[1].sampled == 1000);
    CHECK(plan.sources[1].documents > 1000);  // the reader is ahead of the documents by a block at most
    CHECK(plan.sources[1].documents < 5500);
    REQUIRE(plan.steps.size() == 3);
    CHECK(plan.passes == 2);
    CHECK(plan.steps[0].name == "size");
    CHECK(plan.steps[0].documents == doctest::Approx(4 + plan.sources[1].documents));
    CHECK(plan.steps[1].groups);
    CHECK(plan.steps[2].dropped == 0.5);  // 200 letters x
    CHECK(plan.steps[2].documents == doctest::Approx(plan.sources[1].documents));
    CHECK(plan.final_bytes > 0);
    CHECK(plan.work_bytes > 0);
    const std::string text = plan_text(plan);
    CHECK(text.find("2 passes, ") != std::string::npos);
    CHECK(text.find("and the grouping") != std::string::npos);
    CHECK_FALSE(fs::exists(corpus.scratch / "out"));
  }

  TEST_CASE("corpus plan: steps say what their options will find and take") {
    const RealCorpus corpus;
    corpus.add("a", "1", {{"x", "one two three four five six"}, {"y", "seven eight nine ten eleven"}});
    const fs::path bench = corpus.scratch / "quiz.jsonl";
    spill(bench, "{\"text\":\"who made the moon and the stars\"}\n");
    const auto text = [&](const std::string& more) {
      return plan_text(plan_corpus(corpus.settings("[[data.step]]\nkind = \"dedup\"\nbands = 20\nrows = 13\n"
                                                   "[[data.step]]\nkind = \"decontaminate\"\nbenchmarks = \"" +
                                                   bench.string() + "\"\n" + more),
                                   {.out = corpus.scratch / "out"}));
    };
    const std::string longest = text("");
    const auto first = longest.find("dedup: pairs found with 20 bands of 13 rows: 0.5: 0.00"),
               second = longest.find("dedup: pairs found with 14 bands of 8 rows: 0.5: 0.053, 0.6: 0.211, 0.7: 0.565");
    CHECK(first < second);
    CHECK(second != std::string::npos);
    CHECK(longest.find("pairs found with 20 bands", second) == std::string::npos);
    CHECK(longest.find("decontaminate: 1 n-grams of 1 items take ") != std::string::npos);
    CHECK(longest.find("warning: ") == std::string::npos);
    CHECK(text("ngrams = \"all\"\n").find("warning: decontaminate: about 9 words are few for ngrams = \"all\"") !=
          std::string::npos);
  }

  TEST_CASE("corpus plan: what cannot fit is refused") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two"});
    corpus.add("b/2.jsonl", {"one two"});
    const CorpusRequest request = corpus.request("out");
    CorpusPlan plan = plan_corpus(corpus.settings(kSteps, "memory = \"20MB\""), request);
    CHECK(caught([&] { check_fits(plan, request); }).code == 0);
    plan.free_bytes = 1;
    const Caught disk = caught([&] { check_fits(plan, request); });
    CHECK(disk.code == 4);
    CHECK(disk.says("1 B are free"));
    plan = plan_corpus(corpus.settings(kSteps, "memory = \"1000TB\""), request);
    const Caught memory = caught([&] { check_fits(plan, request); });
    CHECK(memory.code == 2);
    CHECK(memory.says("data.memory: got "));
    plan.memory_bytes = 16'000'000;
    plan.free_bytes = uint64_t{1} << 50;
    plan.steps = {{.name = "copies", .documents = 10e6, .groups = true, .least_memory = 108e6}};
    const Caught documents = caught([&] { check_fits(plan, request); });
    CHECK(documents.code == 2);
    CHECK(documents.says("step 'copies' needs 105.1 MiB for about 10.0M documents"));
  }
}

}  // namespace coppice
