// The step `decontaminate`: the fixture, in any order of files and any number of parts.
#include <doctest/doctest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/corpus/decontaminate/contamination_report.h"
#include "src/text/byte_source.h"
#include "src/text/document_metadata.h"
#include "tests/corpus/step_of.h"

using namespace coppice;
using nlohmann::json;
using test::refusal_of_step;
using test::step_of;

namespace {

json fixture() { return json::parse(std::ifstream(COPPICE_SOURCE_DIR "/tests/corpus/fixtures/decontamination.json")); }

void write_benchmarks(const ScratchFolder& scratch, const json& benchmarks) {
  for (const auto& [name, items] : benchmarks.items()) {
    std::string lines;
    for (const json& text : items) lines += json({{"text", text}}).dump() + "\n";
    spill(scratch / (name + ".jsonl"), lines);
  }
}

/// The corpus of the fixture, a document for each copy, dealt out to files.
std::vector<std::vector<Document>> dealt(const json& corpus, size_t num_files) {
  std::vector<std::vector<Document>> files(num_files);
  size_t next = 0;
  for (const json& row : corpus)
    for (int copy = 0; copy < row["copies"]; ++copy)
      files[next++ % num_files].push_back(
          {.id = row["id"].get<std::string>() + "#" + std::to_string(copy), .source = "s", .text = row["text"]});
  return files;
}

struct Outcome {
  std::map<std::string, std::set<std::string>> removed;  // base id -> benchmark#item of the records
  size_t documents = 0;
  std::vector<Document> kept;
  json report;
  std::string overlap, table;
};

struct Way {
  bool reversed = false;
  uint64_t memory_bytes = uint64_t{1} << 20;
  std::function<std::vector<bool>(uint32_t)> left = {};
};

Outcome run(const ScratchFolder& scratch, const std::string& options, const std::vector<std::vector<Document>>& files,
            const Way& way) {
  const auto step = std::dynamic_pointer_cast<const GroupStep>(step_of(
      scratch, "kind = \"decontaminate\"\nbenchmarks = \"" + (scratch / "*.jsonl").string() + "\"\n" + options));
  std::filesystem::remove_all(scratch / "place");
  GroupPlace place{.folder = scratch / "place",
                   .source_priorities = {1, 1},
                   .source_names = {"even", "odd"},
                   .memory_bytes = way.memory_bytes,
                   .left = way.left};
  for (uint32_t file = 0; file < files.size(); ++file) {
    place.files.push_back("f" + std::to_string(file));
    place.sources.push_back(file % 2);
  }
  std::vector<uint32_t> order(files.size());
  std::iota(order.begin(), order.end(), 0);
  if (way.reversed) std::ranges::reverse(order);
  for (const uint32_t file : order) {
    const auto notes = step->note(place, file);
    for (const Document& document : files[file]) notes->add(document);
    notes->commit();
  }
  std::vector<uint32_t> parts(step->num_parts(place));
  std::iota(parts.begin(), parts.end(), 0);
  if (way.reversed) std::ranges::reverse(parts);
  for (const uint32_t part : parts) step->reduce(place, part);
  step->settle(place);
  Outcome outcome;
  const Rule rule = step->rules().at(0);
  for (const uint32_t file : order) {
    const auto decisions = step->decide(place, file);
    for (Document document : files[file]) {
      double value = std::numeric_limits<double>::quiet_NaN();
      std::string details;
      decisions->look(document, {&value, 1}, details);
      if (rule.drops(value)) {
        ++outcome.documents;
        const json record = json::parse("{" + details + "}");
        outcome.removed[document.id.substr(0, document.id.find('#'))].insert(record["benchmark"].get<std::string>() +
                                                                             "#" + record["item"].dump());
      } else {
        outcome.kept.push_back(document);
      }
    }
  }
  outcome.report = json::parse(slurp(scratch / "place/contamination.json"));
  outcome.table = overlap_table(scratch / "place/overlap.jsonl.zst");
  LineReader lines(scratch / "place/overlap.jsonl.zst", ByteSource::Coding::zstd, 4096);
  for (std::string_view line; lines.next(line);) (outcome.overlap += line) += '\n';
  return outcome;
}

const json& benchmark_of(const json& report, const std::string& name) {
  for (const json& row : report["benchmarks"])
    if (row["name"] == name) return row;
  throw std::runtime_error("no " + name);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("decontaminate: the fixture, both policies, in any order of files, parts and memory") {
    const ScratchFolder scratch;
    const json all = fixture();
    write_benchmarks(scratch, all["benchmarks"]);
    for (const std::string policy : {"longest", "all"}) {
      std::map<std::string, std::set<std::string>> expected;
      for (const auto& [id, items] : all[policy]["dropped"].items())
        for (const json& item : items) expected[id].insert(item.get<std::string>());
      std::optional<Outcome> first;
      for (const auto& [num_files, way] : std::vector<std::pair<size_t, Way>>{
               {1, {}}, {7, {.reversed = true, .memory_bytes = 256}}, {4, {.memory_bytes = 1}}}) {
        const Outcome outcome = run(scratch, "ngrams = \"" + policy + "\"\n", dealt(all["corpus"], num_files), way);
        CHECK(outcome.removed == expected);
        CHECK(outcome.documents == all[policy]["removed_documents"]);
        CHECK(outcome.report["documents_hit"] == all[policy]["removed_documents"]);
        uint64_t exempt = 0, ngrams = 0;
        for (const json& row : outcome.report["benchmarks"])
          exempt += row["ngrams_exempt"].get<uint64_t>(), ngrams += row["ngrams"].get<uint64_t>();
        CHECK(exempt == all[policy]["exempt"].size());
        CHECK(ngrams == all[policy]["index_size"]);
        if (!first) first = outcome;
        CHECK(outcome.overlap == first->overlap);
      }
    }
  }

  TEST_CASE("decontaminate: the report, by benchmark") {
    const ScratchFolder scratch;
    const json all = fixture();
    write_benchmarks(scratch, all["benchmarks"]);
    const Outcome outcome = run(scratch, "", dealt(all["corpus"], 2), {});
    const json& common = benchmark_of(outcome.report, "tiny-common");
    CHECK(common["items"] == 4);
    CHECK(common["hit"] == 1);
    CHECK(common["items_all_exempt"] == 3);
    CHECK(common["ngrams_exempt"] == 3);
    CHECK(common["documents"]["even"].get<int>() + common["documents"]["odd"].get<int>() == 999);
    CHECK(common["windows"] == json::parse(R"([{"item":0,"ngram":"once upon a time","count":999}])"));
    const json& quiz = benchmark_of(outcome.report, "tiny-quiz");
    CHECK(quiz["items"] == 4);
    CHECK(quiz["not_covered"] == 1);
    CHECK(quiz["hit"] == 3);
    CHECK(quiz["windows"].size() == 10);
    CHECK(quiz["windows"][0]["count"] == 2);
    CHECK(outcome.report["documents"] == 17 - 4 + 999 + 1000 + 1001 + 250);
    // Of what is left behind the step: 999 documents with "once upon a time" are gone, common phrases stand.
    CHECK(outcome.overlap.starts_with(R"({"benchmark":"tiny-common","item":0,"ngrams":1,"found":0,"exempt":0})"));
    CHECK(outcome.table.find("tiny-common         4            0         1         0         0         3") !=
          std::string::npos);
    CHECK(outcome.table.find("tiny-quiz           4            1         3         0         0         0") !=
          std::string::npos);
  }

  TEST_CASE("decontaminate: counts by documents, none exempt, documents that earlier steps removed") {
    const ScratchFolder scratch;
    const json all = fixture();
    write_benchmarks(scratch, all["benchmarks"]);
    const auto files = dealt(all["corpus"], 1);
    const Outcome by_document = run(scratch, "count = \"documents\"\n", files, {});
    CHECK(by_document.removed.contains("count-1000-in-250"));
    CHECK_FALSE(by_document.removed.contains("count-1000"));
    CHECK(run(scratch, "common_at_least = 0\n", files, {}).removed.contains("count-1001"));
    CHECK(run(scratch, "common_at_least = 1002\n", files, {}).removed.contains("count-1001"));
    CHECK_FALSE(run(scratch, "common_at_least = 1001\n", files, {}).removed.contains("count-1001"));
    CHECK_FALSE(run(scratch, "common_at_least = 999\n", files, {}).removed.contains("count-999"));
    const auto left = [&](uint32_t) {
      std::vector<bool> left(files[0].size(), true);
      for (size_t i = 0; i < left.size(); ++i) left[i] = files[0][i].id != "count-1000#0";  // 999 of them are left
      return left;
    };
    const Outcome deduplicated = run(scratch, "", files, {.left = left});
    CHECK(deduplicated.removed.contains("count-1000"));
    CHECK(deduplicated.report["documents"] == files[0].size() - 1);
    const Document gone = *std::ranges::find(files[0], "count-1000#0", &Document::id);
    const uint64_t all_words = run(scratch, "", files, {}).report["words"],
                   words = run(scratch, "", {{gone}}, {}).report["words"];
    CHECK(words > 10);
    CHECK(deduplicated.report["words"] == all_words - words);
  }

  TEST_CASE("decontaminate: spans are cut, report-only benchmarks take nothing with them, coverage") {
    const ScratchFolder scratch;
    const json all = fixture();
    write_benchmarks(scratch, all["benchmarks"]);
    const std::string pad(399, 'x');
    const std::vector<std::vector<Document>> files = {
        {{.id = "cut", .source = "s", .text = pad + " Why is the sky blue? " + pad},
         {.id = "gone", .source = "s", .text = "Why is the sky blue?"},
         {.id = "part",
          .source = "s",
          .text = "the largest known volcano in the solar system and what is the mountain called"}}};
    const Outcome spans = run(scratch, "action = \"span\"\n", files, {});
    CHECK(spans.removed.size() == 2);  // nothing is left of "gone" and "part"
    REQUIRE(spans.kept.size() == 1);
    CHECK(spans.kept[0].text == pad.substr(0, 200) + "\n" + pad.substr(0, 200));
    CHECK(*find_metadata(spans.kept[0], "benchmark_cuts") == 1);
    CHECK(spans.overlap.find("\"found\":1") == std::string::npos);
    const Outcome reported = run(scratch, "report_only = [\"tiny-quiz\"]\n", files, {});
    CHECK(reported.removed.empty());
    CHECK(benchmark_of(reported.report, "tiny-quiz")["hit"] == 2);
    CHECK(benchmark_of(reported.report, "tiny-quiz")["report_only"] == true);
    CHECK(reported.report["documents_hit"] == 0);
    CHECK(reported.overlap.find("\"found\":1") != std::string::npos);  // what stays is overlap
    const Outcome covered = run(scratch, "min_coverage = 0.5\n", files, {});
    CHECK(covered.removed.size() == 2);  // one of eight windows is not half of the item
    CHECK_FALSE(covered.removed.contains("part"));
  }

  TEST_CASE("decontaminate: few words for short n-grams are warned about") {
    const ScratchFolder scratch;
    write_benchmarks(scratch, fixture()["benchmarks"]);
    const std::vector<std::vector<Document>> files = {{{.id = "a", .source = "s", .text = "nothing"}}};
    const int64_t before = num_warnings();
    run(scratch, "", files, {});
    CHECK(num_warnings() == before);
    run(scratch, "ngrams = \"all\"\n", files, {});
    CHECK(num_warnings() == before + 1);
  }

  TEST_CASE("decontaminate: what is refused, and what its fingerprint holds") {
    const ScratchFolder scratch;
    spill(scratch / "quiz.jsonl", "{\"text\":\"who made the moon\"}\n");
    const std::string at = (scratch / "my.toml").string(),
                      given = "benchmarks = \"" + (scratch / "quiz.jsonl").string() + "\"\n";
    const auto refusal = [&](const std::string& options) {
      return refusal_of_step(scratch, "kind = \"decontaminate\"\n" + options);
    };
    CHECK(refusal("") == at + ":1: benchmarks: none is given; expected files as benchmarks/*.jsonl");
    CHECK(refusal(given + "ngrams = \"13\"\n") == at + ":4: ngrams: got '13', expected longest or all");
    CHECK(refusal(given + "parts = [\"answer\"]\n") ==
          at + ":4: parts: got 'answer', expected question or question_answer");
    CHECK(refusal(given + "parts = []\n") ==
          at + ":4: parts: none is given; expected question, question_answer or both");
    CHECK(refusal(given + "count = \"words\"\n") == at + ":4: count: got 'words', expected occurrences or documents");
    CHECK(refusal(given + "action = \"x\"\n") == at + ":4: action: got 'x', expected document or span");
    CHECK(refusal(given + "common_at_least = -1\n") == at + ":4: common_at_least: got -1, expected 0 or more");
    CHECK(refusal(given + "min_coverage = 1.5\n") == at + ":4: min_coverage: got 1.5, expected 0 to 1");
    CHECK(refusal(given + "report_only = [\"wiki\"]\n") ==
          at + ":4: report_only: 'wiki' is none of the benchmarks; expected the name of a file without its ending");
    const auto inputs = step_of(scratch, "kind = \"decontaminate\"\n" + given)->inputs();
    REQUIRE(inputs.size() == 1);
    CHECK(inputs[0].starts_with("quiz "));
    CHECK(inputs[0].size() == 5 + 64);
  }
}
