// tune, sample, stats, diff, overlap: exact answers about a corpus that is known by hand.
#include <doctest/doctest.h>

#include <cmath>

#include "src/corpus/report/cluster_summary.h"
#include "src/corpus/report/corpus_diff.h"
#include "src/corpus/report/corpus_text.h"
#include "src/corpus/report/samples.h"
#include "src/corpus/report/text_table.h"
#include "src/corpus/report/tune.h"
#include "src/corpus/report/value_histogram.h"
#include "tests/caught.h"
#include "tests/corpus/report/reported_corpus.h"

using namespace coppice;
using namespace coppice::test;

namespace {

std::vector<std::string> ids_of(const std::vector<Sample>& samples) {
  std::vector<std::string> ids;
  for (const Sample& sample : samples) ids.push_back(sample.id);
  return ids;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("tune: seven other thresholds; what is equal to one stays") {
    const ReportedCorpus made;
    const CompleteCorpus corpus = made.run("out");
    const std::vector<ThresholdRow> rows = threshold_rows(corpus, corpus.files);
    const auto row = std::ranges::find(rows, "char_dup_ratio", &ThresholdRow::rule);
    REQUIRE(row != rows.end());
    CHECK(row->step == "quality");
    CHECK(row->measured == 10);
    CHECK(row->now.dropped == 4);
    std::vector<uint64_t> dropped;
    for (const OtherThreshold& of : row->others) dropped.push_back(of.dropped);
    CHECK(dropped == std::vector<uint64_t>{5, 5, 4, 4, 3, 2, 0});                // at .0375 .075 .1125 .1875 .225 .3 .6
    CHECK(std::ranges::find(rows, "exact", &ThresholdRow::rule) == rows.end());  // yes or no: nothing to move
    CHECK(threshold_table(rows).find(
              "> 0.15        10   40.00%   50.00%  50.00%  40.00%  40.00%  30.00%  20.00%  0.00%") !=
          std::string::npos);
  }

  TEST_CASE("tune: a threshold set, and what comes back") {
    const ReportedCorpus made;
    const CompleteCorpus corpus = made.run("out");
    const TuneOutcome looser = tune(corpus, {parse_change(corpus, "quality.char_dup_ratio=0.25")});
    CHECK(looser.documents == 10);
    CHECK(looser.rules.at(0).before == 4);
    CHECK(looser.rules.at(0).after == 3);
    CHECK(looser.before == 6);  // and the copy, and the document that holds an item
    CHECK(looser.after == 5);
    CHECK(looser.come_back == 1);
    CHECK(looser.go_too == 0);
    const TuneOutcome both = tune(
        corpus, {parse_change(corpus, "quality.char_dup_ratio=0.25"), parse_change(corpus, "quality.list_ratio=0.1")});
    CHECK(both.go_too == 4);  // 9 line feeds for 80 words
    CHECK(both.after == 10);
    CHECK(tune_text(looser).find("Of 10 documents with values, the rules let 6 go (60.00%), and would 5 (50.00%): 1 "
                                 "come back, 0 go in addition.") != std::string::npos);
    CHECK(parse_change(corpus, "quality.char_dup_ratio=0.1..0.2").after.least == 0.1);
    CHECK(std::isinf(parse_change(corpus, "quality.char_dup_ratio=0.1..").after.most));
  }

  TEST_CASE("tune: changes that are none are refused by name") {
    const ReportedCorpus made;
    const CompleteCorpus corpus = made.run("out");
    const auto refusal = [&](const char* change) { return caught([&] { parse_change(corpus, change); }); };
    CHECK(refusal("qualty.char_dup_ratio=1").says("the step 'qualty', which there is not; did you mean 'quality'?"));
    CHECK(
        refusal("quality.char_dup=1").says("the rule 'char_dup', which there is not; did you mean 'char_dup_ratio'?"));
    CHECK(refusal("quality.char_dup_ratio=much").says("expected step.rule=number, or step.rule=least..most"));
    CHECK(refusal("quality.char_dup_ratio").code == 2);
    const CompleteCorpus none = made.run("none", 0.15, "values = \"none\"");
    CHECK(caught([&] { threshold_rows(none, none.files); }).says("was made with values = \"none\""));
    CHECK(caught([&] { sample_documents(none, none.steps[0], none.steps[0].rules[0], 1, true, {}); }).code == 2);
  }

  TEST_CASE("sample: what went, what stayed, with and without the sources") {
    const ReportedCorpus made;
    const CompleteCorpus corpus = made.run("out");
    const ToldStep& step = corpus.step("quality", "--step");
    const ToldRule& rule = corpus.rule(step, "char_dup_ratio", "--rule");
    const std::vector<Sample> gone = sample_documents(corpus, step, rule, 10, false, {.characters = 400});
    CHECK(ids_of(gone) == std::vector<std::string>{"a2", "b3", std::string(kHostile) + "c4", "a5"});
    CHECK(gone[0].value == 0.2);
    CHECK(gone[0].source == "a");
    CHECK(gone[0].text.value_or("").size() > 300);
    CHECK(gone[2].text.value_or("").find("<EMAIL>") != std::string::npos);
    CHECK(gone[2].text.value_or("").find("jane.doe") == std::string::npos);
    const SampleText raw = {.characters = 400, .raw = true};
    CHECK(sample_documents(corpus, step, rule, 10, false, raw)[2].text.value_or("").find("jane.doe@company.org") !=
          std::string::npos);
    CHECK(sample_documents(corpus, step, rule, 2, false, {}).size() == 2);

    const std::vector<Sample> kept = sample_documents(corpus, step, rule, 10, true, {.characters = 20});
    REQUIRE(kept.size() == 4);
    CHECK(kept[3].id == "a1");
    CHECK(std::abs(kept[3].value.value_or(0) - 0.1) < 1e-6);
    CHECK(kept[3].text.value_or("").ends_with("\u2026"));

    std::filesystem::remove_all(made.scratch / "in");
    CHECK_FALSE(sample_documents(corpus, step, rule, 10, false, {})[0].text.has_value());
    CHECK(samples_text(sample_documents(corpus, step, rule, 10, false, {}), step, rule).find("(text not at hand)") !=
          std::string::npos);
    CHECK(sample_documents(corpus, step, rule, 10, true, {})[3].text.has_value());
  }

  TEST_CASE("stats: totals, and what each rule did") {
    const ReportedCorpus made;
    const CompleteCorpus corpus = made.run("out");
    CHECK(corpus.in.documents == 10);
    CHECK(corpus.out.documents == 4);
    const std::string text = stats_text(corpus);
    CHECK(text.starts_with("4 documents, "));
    CHECK(text.find("alarm: source 'b' lost 66.7% of its documents (2 of 3)") != std::string::npos);
    CHECK(
        text.find("quality        char_dup_ratio    > 0.15                       4  40.00%            4           4") !=
        std::string::npos);
    const ToldStep& quality = corpus.step("quality", "");
    CHECK(quality.by_source.at("c").seen.documents == 3);
    CHECK(quality.by_source.at("c").kept.documents == 2);
    const RuleCounts& alone = corpus.rule(quality, "char_dup_ratio", "").counts;
    CHECK(alone.alone.documents == 4);
    CHECK(corpus.rule(corpus.step("dedup", ""), "exact", "").counts.first.documents == 1);
  }

  TEST_CASE("stats: personal data by kind, for a million words") {
    const ScratchFolder scratch("personal");
    spill(scratch / "in/1.jsonl",
          "{\"id\":\"1\",\"text\":\"mail a@b.example or c@d.example\\nor  8.8.8.8 now\"}\n"
          "{\"id\":\"2\",\"text\":\"mail e@f.example\"}\n{\"id\":\"3\",\"text\":\" ten words that say nothing of "
          "anybody at all, really \"}\n");
    spill(
        scratch / "in/2.jsonl",
        "{\"id\":\"4\",\"text\":\"a@b.example c@d.example e@f.example g@h.example i@j.example k@l.example m n o\"}\n");
    spill(scratch / "corpus.toml", fmt::format("[data]\nsource = [{{ name = \"s\", path = \"{}/in\" }}]\n"
                                               "step = [{{ kind = \"pii\" }}]\n",
                                               scratch.path.string()));
    run_corpus(load_corpus(scratch / "corpus.toml", {}, {}), {.out = scratch / "out"});
    const CompleteCorpus corpus = open_complete_corpus(scratch / "out");
    const Counts& counts = corpus.step("pii", "").counted;
    CHECK(counts == Counts{{"words", 28},
                           {"spans of EMAIL", 9},  // six of a document that goes
                           {"documents with EMAIL", 3},
                           {"spans of IP", 1},
                           {"documents with IP", 1}});
    CHECK(personal_rows(corpus) == std::vector<std::vector<std::string>>{{"pii", "EMAIL", "3", "9", "321428.6"},
                                                                         {"pii", "IP", "1", "1", "35714.3"}});
    CHECK(stats_text(corpus).find("pii   EMAIL          3      9           321428.6") != std::string::npos);
    CHECK(slurp(scratch / "out/report.html").find("<h2>Personal data</h2>") != std::string::npos);
  }

  TEST_CASE("diff: who keeps what alone, and why the other did not") {
    const ReportedCorpus made;
    const CompleteCorpus first = made.run("out");
    const CorpusDiff diff = diff_corpora(first, made.run("looser", 0.25));
    CHECK(diff.kept_a.documents == 4);
    CHECK(diff.kept_b.documents == 5);
    CHECK(diff.both == 4);
    CHECK(diff.only_a.documents == 0);
    CHECK(diff.only_b.documents == 1);
    CHECK(diff.only_b.removed_by.at({"quality", "char_dup_ratio"}) == 1);
    CHECK(diff.only_b.unseen == 0);
    CHECK(diff.settings == std::vector<std::string>{"quality.char_dup_ratio: drops > 0.15, > 0.25"});
    made.write("b", {{"new", Prose(100'000).text(0)}});
    const CorpusDiff other = diff_corpora(first, made.run("other"));
    CHECK(other.only_b.unseen == 1);
    CHECK(other.only_a.unseen == 1);
    CHECK(other.settings.empty());
    CHECK(diff_text(diff).find("quality               char_dup_ratio          1  100.00%") != std::string::npos);
  }

  TEST_CASE("groups: what dedup and decontaminate leave for people outlives work/") {
    const ReportedCorpus made;
    const CompleteCorpus corpus = made.run("out");
    CHECK_FALSE(std::filesystem::exists(made.scratch / "out/work"));
    const ClusterSummary clusters =
        summarize_clusters(corpus.left_by(corpus.step("dedup", ""), "clusters.jsonl.zst"), {"a", "b", "c"});
    CHECK(clusters.clusters == 1);
    CHECK(clusters.members == 2);
    CHECK(clusters.sizes == std::map<uint64_t, uint64_t>{{2, 1}});
    CHECK(clusters.largest.at(0).id == "a0");
    CHECK(clusters.largest.at(0).source == "a");
    CHECK(clusters.copies[1][0] == 1);
    CHECK(clusters.copies[0][1] == 0);
    CHECK(clusters.similarities[19] == 1);
    CHECK(overlap_tables(corpus).find("decontaminate\nbenchmark") == 0);
    CHECK(overlap_tables(corpus).find("quiz") != std::string::npos);
    CompleteCorpus without = corpus;
    without.steps.pop_back();
    CHECK(caught([&] { overlap_tables(without); }).says("no step of the corpus looked for benchmarks"));
    CHECK(caught([&] { open_complete_corpus(made.scratch / "in"); }).says("holds no corpus"));
  }

  TEST_CASE("value_histogram: every value counted, thresholds inside, ratios where values span them") {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> values = {0, 0.25F, 0.5F, nan, 1};
    const ValueHistogram linear = value_histogram(values, {.name = "r", .most = 2});
    CHECK_FALSE(linear.is_log);
    CHECK(linear.low == 0);
    CHECK(linear.high == 2);
    CHECK(linear.measured == 4);
    CHECK(linear.counts[0] == 1);
    CHECK(linear.counts[5] == 1);
    CHECK(linear.counts[10] == 1);
    CHECK(linear.counts[20] == 1);
    const std::vector<float> wide = {1, 10, 100, 10000};
    const ValueHistogram ratios = value_histogram(wide, {.name = "r", .least = 50});
    CHECK(ratios.is_log);
    CHECK(ratios.counts[0] == 1);
    CHECK(ratios.counts[10] == 1);
    CHECK(ratios.counts[20] == 1);
    CHECK(ratios.counts[39] == 1);
    CHECK(value_histogram({}, {.name = "r"}).measured == 0);
  }

  TEST_CASE("beginning_of: whole characters, one line, nothing personal") {
    CHECK(beginning_of("  a\n\n b\t\u00e9\u00e9\u00e9 ", {.characters = 6}) == "a b \u00e9\u00e9\u2026");
    CHECK(beginning_of("short", {}) == "short");
    CHECK(beginning_of("mail a.b@company.org now", {}) == "mail <EMAIL> now");
    CHECK(text_table({"a", "b"}, {{"\u00e9", "1"}, {"long", "22"}}, 1) == "a      b\n\u00e9      1\nlong  22\n");
  }
}
