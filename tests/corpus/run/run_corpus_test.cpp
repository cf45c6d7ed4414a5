// The engine of `coppice data run` with steps of the test's own: what becomes of documents, the drop table by hand, the
// same bytes for any tasks, threads, order and kill.
#include "src/corpus/run/run_corpus.h"

#include <doctest/doctest.h>

#include <cmath>

#include <chrono>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "src/base/failpoint.h"
#include "src/base/file_lock.h"
#include "src/base/hdf5.h"
#include "src/base/json.h"
#include "src/base/signals.h"
#include "src/corpus/report/complete_corpus.h"
#include "src/corpus/run/plan_corpus.h"
#include "tests/caught.h"
#include "tests/child_process.h"
#include "tests/corpus/run/small_corpus.h"

namespace coppice {
namespace {

using namespace test;

constexpr const char* kAllSteps = R"(
  { kind = "size" },
  { kind = "plain" },
  { kind = "same" },
  { kind = "common", at_least = 3 },
  { kind = "size", name = "again", min_bytes = 6 },
)";

/// Eight files of many texts, some of which meet in several.
void fill(const SmallCorpus& corpus) {
  for (int file = 0; file < 8; ++file) {
    std::vector<std::string> texts;
    for (int i = 0; i < 20; ++i) {
      std::string text(static_cast<size_t>(2 + (i * 7 + file * 3) % 11), static_cast<char>('a' + (i + file * 5) % 26));
      for (int digit = 0; digit < (i + file) % 6; ++digit) text += static_cast<char>('0' + digit);
      if (i % 9 == 0) text += "xxx";
      texts.push_back(text);
    }
    corpus.add(fmt::format("{}/{}.jsonl", file % 3 == 0 ? "a" : "b", file), texts);
  }
}

/// Runs every task, one behind another, until the corpus is complete; how many rounds it took. Of three (two group
/// steps: four) each one's last task begins what the next round goes on with.
int run_all(const SmallCorpus& corpus, const CorpusSettings& settings, const std::string& out, uint32_t tasks,
            bool reverse) {
  for (int round = 1;; ++round) {
    REQUIRE(round < 10);
    for (uint32_t i = 0; i < tasks; ++i) {
      try {
        run_corpus(settings, corpus.request(out, reverse ? tasks - 1 - i : i, tasks));
        return round;
      } catch (const Stopped& stopped) {
        CHECK(std::string(stopped.what()).starts_with("not yet: "));
      }
    }
  }
}

/// Of a run that ends with 75; empty where it does not.
std::string why_stopped(const CorpusSettings& settings, const CorpusRequest& request) {
  try {
    run_corpus(settings, request);
  } catch (const Stopped& stopped) {
    return stopped.what();
  }
  return "";
}

Json rule_of(const Json& report, const std::string& step, const std::string& rule) {
  for (const Json& of : report["steps"])
    for (const Json& row : of["rules"])
      if (of["step"] == step && row["rule"] == rule) return row;
  return {};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("corpus: what stays, what goes and why, what was measured") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two", "abc", "12345", "xxxx1", "7777"});
    corpus.add("b/2.jsonl", {"one two", "four5", "xxx12345"});
    const CorpusOutcome outcome = run_corpus(
        corpus.settings("{ kind = \"size\" }, { kind = \"plain\" }, { kind = \"same\" }\n"), corpus.request("out"));
    CHECK(outcome.files == 2);
    CHECK(outcome.files == 2);
    CHECK(outcome.documents == Amount{2, 11});  // one two, four
    const fs::path out = corpus.scratch / "out";
    CHECK(unpacked(out / "documents/a/1.jsonl.zst") ==
          "{\"id\":\"a/1.jsonl#1\",\"source\":\"a\",\"text\":\"one two\",\"metadata\":{\"license\":\"unknown\"}}\n");
    CHECK(unpacked(out / "documents/b/2.jsonl.zst") ==
          "{\"id\":\"b/2.jsonl#2\",\"source\":\"b\",\"text\":\"four\",\"metadata\":{\"license\":\"unknown\"}}\n");
    CHECK(unpacked(out / "removed/size/a/1.jsonl.zst") ==
          "{\"id\":\"a/1.jsonl#2\",\"source\":\"a\",\"rule\":\"bytes\",\"value\":3.0,\"threshold\":4.0}\n"
          "{\"id\":\"a/1.jsonl#3\",\"source\":\"a\",\"rule\":\"digits\",\"value\":5.0,\"threshold\":3.0}\n"
          "{\"id\":\"a/1.jsonl#5\",\"source\":\"a\",\"rule\":\"digits\",\"value\":4.0,\"threshold\":3.0}\n");
    CHECK(unpacked(out / "removed/plain/a/1.jsonl.zst") ==
          "{\"id\":\"a/1.jsonl#4\",\"source\":\"a\",\"rule\":\"x\",\"value\":4.0,\"threshold\":2.0}\n");
    CHECK(unpacked(out / "removed/same/b/2.jsonl.zst") ==
          "{\"id\":\"b/2.jsonl#1\",\"source\":\"b\",\"rule\":\"copy\",\"value\":1.0,\"threshold\":0.0,"
          "\"kept\":\"0:0\"}\n");
    CHECK_FALSE(fs::exists(out / "removed/same/a"));
    CHECK_FALSE(fs::exists(out / "work"));

    const Hdf5Reader values(out / "values/b/2.h5");
    CHECK(values.datasets() ==
          std::vector<std::string>{"/document", "/id", "/plain/x", "/same/copy", "/size/bytes", "/size/digits"});
    std::vector<uint64_t> documents(3);
    values.read_all("/document", Hdf5Type::u64, documents.data(), 24);
    CHECK(documents == std::vector<uint64_t>{uint64_t{1} << 32, (uint64_t{1} << 32) + 1, (uint64_t{1} << 32) + 2});
    std::vector<float> digits(3), copy(3);
    values.read_all("/size/digits", Hdf5Type::f32, digits.data(), 12);
    CHECK(digits == std::vector<float>{0, 1, 5});
    values.read_all("/same/copy", Hdf5Type::f32, copy.data(), 12);
    CHECK(copy[0] == 1);
    CHECK(copy[1] == 0);
    CHECK(std::isnan(copy[2]));  // it went before
  }

  TEST_CASE("corpus: the drop table by hand, of all documents and of none") {
    const SmallCorpus corpus;
    // first: bytes 1 (abc), digits 3; alone: abc by bytes, 12345 and 7777 by none but digits and emptied, ...
    corpus.add("a/1.jsonl", {"one two", "abc", "12345", "xxxx1", "7777"});
    corpus.add("b/2.jsonl", {"one two", "four5", "xxx12345", "xxxy", "12"});
    const char* steps =
        "{ kind = \"size\" }, { kind = \"plain\" }, { kind = \"size\", name = \"idle\", min_bytes = 0 }\n";
    run_corpus(corpus.settings(steps), corpus.request("out"));
    const Json report = read_sealed(corpus.scratch / "out/report.json", "coppice.corpus", 1);
    CHECK(report["in"] == Json::parse("{\"documents\":10,\"text_bytes\":50}"));
    CHECK(report["out"] == Json::parse("{\"documents\":3,\"text_bytes\":18}"));
    const auto amounts = [](const Json& row) {
      std::string text;
      for (const char* key : {"first", "alone", "would"})
        text += fmt::format("{}:{} ", row[key]["documents"].get<int>(), row[key]["text_bytes"].get<int>());
      return text;
    };
    // bytes: abc, 12. digits: 12345, 7777, xxx12345. x: xxxx1, xxx12345, xxxy. emptied: 12345, 7777, 12.
    CHECK(amounts(rule_of(report, "size", "bytes")) == "2:5 1:3 2:5 ");
    CHECK(amounts(rule_of(report, "size", "digits")) == "3:17 0:0 3:17 ");
    CHECK(amounts(rule_of(report, "plain", "x")) == "2:9 2:9 3:17 ");
    CHECK(amounts(rule_of(report, "plain", "emptied")) == "0:0 0:0 3:11 ");
    CHECK(amounts(rule_of(report, "idle", "bytes")) == "0:0 0:0 0:0 ");
    CHECK(rule_of(report, "size", "digits")["first_by_source"] ==
          Json::parse("{\"a\":{\"documents\":2,\"text_bytes\":9},\"b\":{\"documents\":1,\"text_bytes\":8}}"));
    CHECK(rule_of(report, "size", "bytes")["least"] == 4.0);
    CHECK(rule_of(report, "size", "bytes")["most"].is_null());
    CHECK(report["alarms"] ==
          Json({"source 'a' lost 80.0% of its documents (4 of 5)", "source 'b' lost 60.0% of its documents (3 of 5)"}));
    const std::string text = slurp(corpus.scratch / "out/report.md");
    CHECK(text.find("| size | digits | > 3 | 3 | 17 B | 0 | 0 B | 3 | 17 B | a 40.00%, b 20.00% |") !=
          std::string::npos);
    CHECK(text.find("| idle | bytes | < 0 | 0 | 0 B | 0 | 0 B | 0 | 0 B | removed nothing |") != std::string::npos);

    run_corpus(corpus.settings(steps, "values = \"none\""), corpus.request("none"));
    const Json none = read_sealed(corpus.scratch / "none/report.json", "coppice.corpus", 1);
    CHECK(amounts(rule_of(none, "size", "digits")) == "3:17 0:0 0:0 ");
    CHECK_FALSE(fs::exists(corpus.scratch / "none/values"));
    CHECK(slurp(corpus.scratch / "none/documents/a/1.jsonl.zst") ==
          slurp(corpus.scratch / "out/documents/a/1.jsonl.zst"));
  }

  TEST_CASE("corpus: a step that only looks at some sources; a step that sees nothing is a warning") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"abc", "same text"});
    corpus.add("b/2.jsonl", {"abc", "same text", "same text"});
    const char* steps =
        "{ kind = \"size\", only = [\"a\"] }, { kind = \"same\", only = [\"b\"] },\n"
        "{ kind = \"size\", name = \"all\", min_bytes = 100 }, { kind = \"plain\" }\n";
    run_corpus(corpus.settings(steps), corpus.request("out"));
    const fs::path out = corpus.scratch / "out";
    CHECK(fs::exists(out / "removed/size/a/1.jsonl.zst"));
    CHECK_FALSE(fs::exists(out / "removed/size/b"));
    CHECK(unpacked(out / "removed/same/b/2.jsonl.zst").find("b/2.jsonl#3") != std::string::npos);
    const Json report = read_sealed(out / "report.json", "coppice.corpus", 1);
    CHECK(report["warnings"] == Json::parse("[\"step 'plain' saw no document\"]"));
    CHECK(report["alarms"].back() == "no document is left");
  }

  TEST_CASE("corpus: a group step counts what the group steps in front of it leave") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"anna", "anna", "anna", "arno", "bert"});
    corpus.add("b/2.jsonl", {"anna", "carl", "carla", "carlo"});
    run_corpus(corpus.settings("{ kind = \"same\" }, { kind = \"common\", at_least = 3 }\n"), corpus.request("out"));
    const fs::path out = corpus.scratch / "out";
    // Without its copies `a` opens two documents; `c` opens three.
    CHECK_FALSE(fs::exists(out / "removed/common/a"));
    const std::string common = unpacked(out / "removed/common/b/2.jsonl.zst");
    CHECK(std::ranges::count(common, '\n') == 3);
    CHECK(common.find("\"documents\":3") != std::string::npos);
    CHECK(unpacked(out / "documents/b/2.jsonl.zst").empty());
    CHECK(std::ranges::count(unpacked(out / "documents/a/1.jsonl.zst"), '\n') == 3);
  }

  TEST_CASE("corpus: the same bytes for any number of tasks and threads, in any order") {
    const SmallCorpus corpus;
    fill(corpus);
    run_corpus(corpus.settings(kAllSteps, "threads = 1"), corpus.request("one"));
    const auto expected = files_below(corpus.scratch / "one");
    CHECK(expected.contains("documents/a/0.jsonl.zst"));
    for (const char* step : {"size", "plain", "same", "common", "again"})
      CHECK_MESSAGE(fs::exists(corpus.scratch / "one/removed" / step), step);
    run_corpus(corpus.settings(kAllSteps, "threads = 4"), corpus.request("threads"));
    CHECK(files_below(corpus.scratch / "threads") == expected);
    CHECK(run_all(corpus, corpus.settings(kAllSteps, "threads = 4"), "two", 2, false) <= 3);
    CHECK(files_below(corpus.scratch / "two") == expected);
    CHECK(run_all(corpus, corpus.settings(kAllSteps, "threads = 1\nmemory = \"20MB\""), "seven", 7, true) <= 4);
    CHECK(files_below(corpus.scratch / "seven") == expected);
    CHECK(run_all(corpus, corpus.settings(kAllSteps), "many", 12, false) <= 4);  // more tasks than files
    CHECK(files_below(corpus.scratch / "many") == expected);
  }

  TEST_CASE("corpus: tasks that wait for each other finish at the first start") {
    const SmallCorpus corpus;
    fill(corpus);
    const CorpusSettings settings = corpus.settings(kAllSteps, "threads = 1");
    run_corpus(settings, corpus.request("one"));
    std::vector<pid_t> tasks;
    for (uint32_t task = 0; task < 3; ++task)
      tasks.push_back(start_child([&] {
        CorpusRequest request = corpus.request("three", task, 3);
        request.wait = true;
        run_corpus(settings, request);
      }));
    for (const pid_t task : tasks) CHECK(wait_for(task) == 0);
    CHECK(files_below(corpus.scratch / "three") == files_below(corpus.scratch / "one"));
  }

  TEST_CASE("corpus: no task ends before the report is written, and one that waits follows one that died over it") {
    const SmallCorpus corpus;
    fill(corpus);
    const CorpusSettings settings = corpus.settings("{ kind = \"size\" }\n");
    CHECK_THROWS_AS(run_corpus(settings, corpus.request("out", 0, 2)), Stopped);
    std::unique_ptr<FileLock> writer = FileLock::try_take(corpus.scratch / "out/work/.report");
    REQUIRE(writer != nullptr);
    const std::string said = why_stopped(settings, corpus.request("out", 1, 2));
    CHECK(said.starts_with("not yet: 0 of 1 reports;"));
    CorpusOutcome waited;
    std::jthread task([&] {
      CorpusRequest request = corpus.request("out", 0, 2);
      request.wait = true;
      waited = run_corpus(settings, request);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    CHECK_FALSE(fs::exists(corpus.scratch / "out/report.json"));
    writer = nullptr;  // gone without a report
    task.join();
    CHECK(waited.documents.documents > 0);
    CHECK(fs::exists(corpus.scratch / "out/report.json"));
    CHECK_FALSE(fs::exists(corpus.scratch / "out/work"));
  }

  TEST_CASE("corpus: not yet; a second task of the same number; already complete") {
    const SmallCorpus corpus;
    fill(corpus);
    const CorpusSettings settings = corpus.settings(kAllSteps);
    const std::string said = why_stopped(settings, corpus.request("out", 1, 3));
    CHECK(said.starts_with("not yet: 3 of 8 files of pass 1;"));
    {
      const auto held = FileLock::try_take(corpus.scratch / "out/work/.task-2");
      const Caught second = caught([&] { run_corpus(settings, corpus.request("out", 2, 3)); });
      CHECK(second.code == 5);
      CHECK(second.says("another process works as task 2"));
    }
    run_all(corpus, settings, "out", 3, false);
    const CorpusOutcome again = run_corpus(settings, corpus.request("out"));
    CHECK(again.complete_before);
    CHECK(again.documents.documents > 0);

    CorpusRequest keeping = corpus.request("kept");
    keeping.keep_work = true;
    run_corpus(settings, keeping);
    CHECK(fs::exists(corpus.scratch / "kept/work/pass1/a/0.documents"));
    CHECK_FALSE(run_corpus(settings, keeping).documents.documents == 0);
  }

  TEST_CASE("corpus: inputs and settings that have changed are refused, with both sides named") {
    const SmallCorpus corpus;
    fill(corpus);
    const CorpusSettings settings = corpus.settings(kAllSteps);
    CHECK_THROWS_AS(run_corpus(settings, corpus.request("half", 0, 2)), Stopped);
    run_corpus(settings, corpus.request("whole"));
    for (const char* out : {"half", "whole"}) {
      const Caught other = caught([&] {
        run_corpus(corpus.settings("{ kind = \"size\", min_bytes = 5 }, { kind = \"plain\" }, { kind = \"same\" },\n"
                                   "{ kind = \"common\" }, { kind = \"size\", name = \"again\", min_bytes = 6 }\n"),
                   corpus.request(out));
      });
      CHECK(other.code == 3);
      CHECK(other.says("step 1 'size': min_bytes was 4, is 5; choose another folder"));
      CHECK(caught([&] {
              run_corpus(corpus.settings(kAllSteps, "values = \"none\""), corpus.request(out));
            }).says("values was all, is none"));
      CHECK(caught([&] {
              run_corpus(corpus.settings("{ kind = \"size\" }, { kind = \"plain\" }, { kind = \"same\" },\n"
                                         "{ kind = \"size\", name = \"again\", min_bytes = 6 }\n"),
                         corpus.request(out));
            }).says("step 4 'common' was there, is gone"));
      CHECK(caught([&] {
              run_corpus(corpus.settings(kAllSteps + std::string("{ kind = \"plain\", name = \"x\", only = \"a\" }\n")),
                         corpus.request(out));
            }).says("step 6 'x' was not there"));
      CorpusSettings licensed = corpus.settings(kAllSteps);
      licensed.sources[1].license = "MIT";
      CHECK(
          caught([&] { run_corpus(licensed, corpus.request(out)); }).says("source 2 'b': license was unknown, is MIT"));
    }
    corpus.add("a/0.jsonl", {"other text"});
    for (const char* out : {"half", "whole"}) {
      const Caught changed = caught([&] { run_corpus(settings, corpus.request(out)); });
      CHECK(changed.code == 3);
      CHECK(changed.says("in/a/0.jsonl with "));
      CHECK(changed.says("which now has "));
    }
    corpus.add("a/more.jsonl", {"one more"});
    CHECK(caught([&] { run_corpus(settings, corpus.request("half")); }).says("input files were 8, are 9"));
    CHECK(caught([&] { run_corpus(settings, corpus.request("whole")); }).says("a/more.jsonl was not there"));
  }

  TEST_CASE("corpus: a source without any of its files counts as it was; one of which some are left does not") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two", "abc"});
    corpus.add("a/2.jsonl", {"three four"});
    corpus.add("b/3.jsonl", {"one two", "five six"});
    const char* steps = "{ kind = \"size\" }, { kind = \"same\" }\n";
    const CorpusSettings settings = corpus.settings(steps);
    CHECK_THROWS_AS(run_corpus(settings, corpus.request("half", 0, 2)), Stopped);
    const CorpusOutcome made = run_corpus(settings, corpus.request("out"));
    const auto again = [&] { return run_corpus(settings, corpus.request("out")); };
    fs::remove(corpus.scratch / "in/a/1.jsonl");
    const Caught some = caught(again);
    CHECK(some.code == 3);
    CHECK(some.says("a/1.jsonl was there, is gone"));
    fs::remove_all(corpus.scratch / "in/a");
    CHECK(again().complete_before);
    CHECK(again().documents == made.documents);
    CHECK(again().files == 3);
    CHECK(caught([&] {
            run_corpus(corpus.settings("{ kind = \"size\", min_bytes = 5 }, { kind = \"same\" }\n"),
                       corpus.request("out"));
          }).says("step 1 'size': min_bytes was 4, is 5"));
    corpus.add("b/3.jsonl", {"other"});
    CHECK(caught(again).says("in/b/3.jsonl with "));
    fs::remove_all(corpus.scratch / "in");
    CHECK(again().complete_before);
    fs::remove(corpus.scratch / "out/documents/a/2.jsonl.zst");
    const Caught gone = caught(again);
    CHECK(gone.code == 3);
    CHECK(gone.says("out/documents/a/2.jsonl.zst"));
    CHECK(gone.says("is gone from a corpus that was complete"));
    const Caught half = caught([&] { run_corpus(settings, corpus.request("half", 0, 2)); });
    CHECK(half.code == 2);
    CHECK(half.says("no such file or folder"));
  }

  TEST_CASE("corpus: a folder that lies in a source, or holds one, is refused before anything is written") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two"});
    corpus.add("b/2.jsonl", {"one two"});
    fs::create_directory_symlink(corpus.scratch / "in/b", corpus.scratch / "link");
    const CorpusSettings settings = corpus.settings("{ kind = \"size\" }\n");
    for (const char* out : {"in/a", "in/a/out", "in/x/../a/deep/out"}) {
      const Caught inside = caught([&] { run_corpus(settings, corpus.request(out)); });
      CHECK(inside.code == 2);
      CHECK(inside.says("corpus.toml:4: source 'a': its folder "));
      CHECK(inside.says("would be read as a source"));
    }
    CHECK(caught([&] { run_corpus(settings, corpus.request("link/out")); }).says("corpus.toml:5: source 'b'"));
    CHECK(caught([&] { run_corpus(settings, corpus.request("in")); }).says("lies in the corpus' folder"));
    CHECK(caught([&] { plan_corpus(settings, corpus.request("in/a/out")); }).code == 2);
    CHECK(files_below(corpus.scratch / "in").size() == 2);

    const auto of_pattern = [&](const std::string& pattern, const std::string& out) {
      spill(corpus.scratch / "one.toml", fmt::format("[[data.source]]\nname = \"p\"\npath = \"{}/{}\"\n[data]\n",
                                                     corpus.scratch.path.string(), pattern));
      return caught(
          [&] { run_corpus(load_corpus(corpus.scratch / "one.toml", {}, {}, kSmallSteps), corpus.request(out)); });
    };
    CHECK(of_pattern("in/**", "in/out").code == 2);
    CHECK(of_pattern("in/*/*", "in/out").code == 2);
    CHECK(of_pattern("in/**/*.zst", "in/out").code == 2);
    CHECK(of_pattern("in/a/*.jsonl", "in").code == 2);
    CHECK(of_pattern("in/**/*.jsonl", "in/jsonl").code == 0);  // what a corpus holds has other endings
    CHECK(of_pattern("in/a/*.jsonl", "in/a/out").code == 0);   // too deep for the pattern
  }

  TEST_CASE("corpus: files are called as their inputs are, without endings while that tells them apart") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two"});
    corpus.add("a/1.ndjson", {"three four"});
    corpus.add("a/sub/1.json", {"five six"});
    corpus.add("b/2.v1.JSONL", {"seven"});
    run_corpus(corpus.settings("{ kind = \"size\" }\n"), corpus.request("out"));
    const auto files = files_below(corpus.scratch / "out/documents");
    std::vector<std::string> names;
    for (const auto& [name, bytes] : files) names.push_back(name);
    CHECK(names == std::vector<std::string>{"a/1.jsonl.jsonl.zst", "a/1.ndjson.jsonl.zst", "a/sub/1.jsonl.zst",
                                            "b/2.v1.jsonl.zst"});
    CHECK(fs::exists(corpus.scratch / "out/values/b/2.v1.h5"));
    CHECK(unpacked(corpus.scratch / "out/documents/a/sub/1.jsonl.zst").find("\"five six\"") != std::string::npos);
    run_corpus(corpus.settings("{ kind = \"size\" }\n"), corpus.request("again"));
    CHECK(open_complete_corpus(corpus.scratch / "again").files.size() == 4);
    for (const SourceFile& file : open_complete_corpus(corpus.scratch / "again").files)
      CHECK_MESSAGE(fs::exists(open_complete_corpus(corpus.scratch / "again").documents(file)), file.name);
  }

  TEST_CASE("corpus: as an input, the folder of a corpus is its documents") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two", "abc", "xxxx"});
    corpus.add("b/2.jsonl", {"one two", "four"});
    const CorpusSettings settings = corpus.settings("{ kind = \"size\" }, { kind = \"same\" }\n");
    CorpusRequest keeping = corpus.request("out");
    keeping.keep_work = true;
    run_corpus(settings, keeping);
    const auto listed = [&](const char* folder) {
      return list_source_files({{.name = "old", .path = (corpus.scratch / folder).string()}});
    };
    const std::vector<SourceFile> files = listed("out");
    REQUIRE(files.size() == 2);
    CHECK(files[0].name == "old/a/1.jsonl.zst");
    CHECK(files[1].path == corpus.scratch / "out/documents/b/2.jsonl.zst");
    std::vector<std::string> ids;
    const CorpusReport report =
        for_each_document(corpus.scratch / "out", [&](Document&& document) { ids.push_back(document.id); });
    CHECK(ids == std::vector<std::string>{"a/1.jsonl#1", "a/1.jsonl#3", "b/2.jsonl#2"});
    CHECK(report.other_files.empty());
    CHECK(stored_bytes(corpus.scratch / "out") == stored_bytes(corpus.scratch / "out/documents"));

    CHECK_THROWS_AS(run_corpus(settings, corpus.request("half", 0, 2)), Stopped);
    CHECK(caught([&] { listed("half"); }).says("half: the corpus is not complete; run coppice data run again"));
    CHECK(caught([&] { for_each_document(corpus.scratch / "half", [](Document&&) {}); }).code == 3);
    const std::string sealed = slurp(corpus.scratch / "out/report.json");
    spill(corpus.scratch / "out/report.json", sealed.substr(0, sealed.size() / 2));
    CHECK(caught([&] { listed("out"); }).code == 3);
    spill(corpus.scratch / "out/report.json", "{\"text\":\"a report of somebody else\"}\n");
    fs::remove_all(corpus.scratch / "out/work");
    CHECK(listed("out").size() > 2);
  }

  TEST_CASE("corpus: what a step has counted of all files is told to it before the report is written") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two", "qqqq", "qabc"});
    corpus.add("a/2.jsonl", {"three"});
    corpus.add("b/3.jsonl", {"query", "four"});
    const char* steps = "{ kind = \"counted\", max_q = 2 }, { kind = \"same\" }\n";
    const Caught one = caught([&] { run_corpus(corpus.settings(steps, "threads = 1"), corpus.request("one")); });
    CHECK(one.code == 3);
    CHECK(one.says("3 of 6 documents begin with q"));
    CHECK_FALSE(fs::exists(corpus.scratch / "one/report.json"));
    // Each task's files were counted by a process of its own.
    CHECK(caught([&] {
            run_all(corpus, corpus.settings(steps), "two", 2, false);
          }).says("3 of 6 documents begin with q"));
    const char* allowed = "{ kind = \"counted\", max_q = 3 }, { kind = \"same\" }\n";
    run_corpus(corpus.settings(allowed), corpus.request("three"));
    const Json report = read_sealed(corpus.scratch / "three/report.json", "coppice.corpus", 1);
    CHECK(report["steps"][0]["counts"] == Json::parse("{\"begin with q\":3,\"documents\":6}"));
  }

  TEST_CASE("corpus: text of what went, and documents that keep their fields through all passes") {
    const SmallCorpus corpus;
    spill(corpus.scratch / "in/a/1.jsonl",
          "{\"id\":\"1\",\"text\":\"one1\",\"n\":1e400,\"metadata\":{\"license\":\"MIT\",\"url\":\"http://a\","
          "\"scores\":{\"s\":0.5}}}\n{\"id\":\"2\",\"text\":\"a \\\"b\\\"\"}\n{\"id\":\"3\",\"text\":\"ab\"}\n");
    corpus.add("b/2.jsonl", {"none"});
    CorpusRequest request = corpus.request("out");
    request.keep_removed_text = true;
    run_corpus(corpus.settings("{ kind = \"size\" }, { kind = \"same\" }, { kind = \"plain\" }\n"), request);
    CHECK(unpacked(corpus.scratch / "out/documents/a/1.jsonl.zst") ==
          "{\"id\":\"1\",\"source\":\"a\",\"text\":\"one\",\"n\":1e400,\"metadata\":{\"license\":\"MIT\",\"url\":"
          "\"http://a\",\"scores\":{\"s\":0.5}}}\n"
          "{\"id\":\"2\",\"source\":\"a\",\"text\":\"a \\\"b\\\"\",\"metadata\":{\"license\":\"unknown\"}}\n");
    CHECK(unpacked(corpus.scratch / "out/removed/size/a/1.jsonl.zst") ==
          "{\"id\":\"3\",\"source\":\"a\",\"rule\":\"bytes\",\"value\":2.0,\"threshold\":4.0,\"text\":\"ab\"}\n");
  }

  TEST_CASE("corpus: pages that no step turns into text are refused where their source stands") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two"});
    corpus.add("b/2.jsonl", {"<p>one"});
    CorpusRequest request = corpus.request("out");
    request.read = [](const SourceFile& file, const SourceOptions& source, const ReadLimits& limits,
                      const std::function<void(Document &&)>& take, uint64_t* bytes_read) {
      const auto as_page = [&](Document&& document) {
        document.is_page = source.name == "b";
        take(std::move(document));
      };
      return read_source_file(file, source, limits, as_page, bytes_read);
    };
    const Caught refused = caught([&] { run_corpus(corpus.settings("{ kind = \"size\" }\n"), request); });
    CHECK(refused.code == 2);
    CHECK(refused.says("corpus.toml:8: step 'size' got the page 'b/2.jsonl#1', expected texts"));
    request.out = corpus.scratch / "passed";
    const Caught passed =
        caught([&] { run_corpus(corpus.settings("{ kind = \"size\", only = [\"a\"] }\n"), request); });
    CHECK(passed.code == 2);
    CHECK(passed.says("corpus.toml:5: source 'b' holds pages ('b/2.jsonl#1' is one)"));
  }

  TEST_CASE("corpus: bad records are counted; too many of them are refused") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two"});
    spill(corpus.scratch / "in/b/2.jsonl", "{\"text\":\"fine text\"}\nno JSON\n{\"text\":\"\"}\n");
    CHECK(run_corpus(corpus.settings("{ kind = \"size\" }\n"), corpus.request("out")).documents.documents == 2);
    const Json report = read_sealed(corpus.scratch / "out/report.json", "coppice.corpus", 1);
    CHECK(report["sources"][1]["records"] == 3);
    CHECK(report["warnings"] == Json({"source 'b' has 1 bad records of 3"}));
    std::string lines;
    for (int i = 0; i < 200; ++i) lines += "no JSON\n";
    spill(corpus.scratch / "in/b/2.jsonl", lines);
    const Caught refused = caught([&] { run_corpus(corpus.settings("{ kind = \"size\" }\n"), corpus.request("bad")); });
    CHECK(refused.code == 3);
    CHECK(refused.says("in/b/2.jsonl"));
  }

  TEST_CASE("corpus: nothing repeats too often for the documents between passes") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"short"});
    std::string lines;
    for (int i = 0; i < 40; ++i)
      lines += fmt::format("{{\"text\":\"{}\"}}\n", std::string(200000, 'a') + fmt::format("{}", i));
    spill(corpus.scratch / "in/b/2.jsonl", lines);
    CHECK(run_corpus(corpus.settings("{ kind = \"same\" }\n"), corpus.request("out")).documents.documents == 41);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("corpus: one whose texts repeat themselves without end is read again by whoever reads documents") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {std::string(size_t{16} << 20, 'a')});
    corpus.add("b/1.jsonl", std::vector<std::string>(100'000, "one line that everybody has"));
    run_corpus(corpus.settings("{ kind = \"size\" }\n"), corpus.request("out"));
    CHECK(for_each_document(corpus.scratch / "out", [](Document&&) {}).documents == 100'001);
    CHECK(fs::file_size(corpus.scratch / "out/documents/a/1.jsonl.zst") < 100'000);
    spill(corpus.scratch / "next.toml",
          fmt::format("[[data.source]]\nname = \"old\"\npath = \"{}\"\n", (corpus.scratch / "out").string()));
    run_corpus(load_corpus(corpus.scratch / "next.toml", {}, {}, kSmallSteps), corpus.request("next"));
    CHECK(for_each_document(corpus.scratch / "next", [](Document&&) {}).documents == 100'001);
  }

  TEST_CASE("corpus: killed at every failpoint, the same command finishes with the same bytes") {
    const SmallCorpus corpus;
    fill(corpus);
    const CorpusSettings settings = corpus.settings(kAllSteps, "threads = 2");
    run_corpus(settings, corpus.request("whole"));
    const auto expected = files_below(corpus.scratch / "whole");
    for (const char* point :
         {"corpus.document@1", "corpus.document@70", "corpus.document@200", "corpus.after_notes@1",
          "corpus.after_notes@11", "corpus.before_record@3", "corpus.after_record@2", "corpus.after_record@10",
          "corpus.after_documents@1", "corpus.after_documents@8", "corpus.after_documents@16", "corpus.after_reduce@2",
          "corpus.after_reduce@4", "corpus.before_settle@1", "corpus.after_settle@1", "corpus.after_settle@2",
          "corpus.before_report@1", "corpus.before_clean@1"}) {
      CAPTURE(point);
      const std::string spec(point);
      const int code = run_in_child([&] {
        set_failpoints(spec.substr(0, spec.find('@')) + "=abort" + spec.substr(spec.find('@')));
        run_corpus(settings, corpus.request("killed"));
      });
      CHECK(code == 128 + SIGKILL);
      run_corpus(settings, corpus.request("killed"));
      CHECK(files_below(corpus.scratch / "killed") == expected);
      fs::remove_all(corpus.scratch / "killed");
    }
  }

  TEST_CASE("corpus: killed after each of its system calls, the same command finishes with the same bytes") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two", "abc", "xxxx1"});
    corpus.add("b/2.jsonl", {"one two", "four5"});
    const CorpusSettings settings =
        corpus.settings("{ kind = \"size\" }, { kind = \"same\" }, { kind = \"plain\" }\n", "threads = 1");
    run_corpus(settings, corpus.request("whole"));
    const auto expected = files_below(corpus.scratch / "whole");
    int num_kills = 0;
    for (;; num_kills += 3) {  // every third: a call and the one behind it leave the same, but for a name
      REQUIRE(num_kills < 2000);
      fs::remove_all(corpus.scratch / "killed");
      const int code = run_in_child([&] {
        set_failpoints("", static_cast<uint64_t>(num_kills) + 1);
        run_corpus(settings, corpus.request("killed"));
      });
      CAPTURE(num_kills);
      CHECK((code == 0 || code == 128 + SIGKILL));
      run_corpus(settings, corpus.request("killed"));
      const auto now = files_below(corpus.scratch / "killed");
      CHECK(now == expected);
      for (const auto& [name, bytes] : now) CHECK_MESSAGE(expected.contains(name), name);
      if (code == 0) break;
    }
    CHECK(num_kills > 50);
  }

  TEST_CASE("corpus: a full disk is exit 4, and what is complete stays") {
    const SmallCorpus corpus;
    fill(corpus);
    const CorpusSettings settings = corpus.settings(kAllSteps, "threads = 1");
    const int code = run_in_child([&] {
      set_failpoints("io.fsync=error@40");
      run_corpus(settings, corpus.request("out"));
    });
    CHECK(code == 4);
    CHECK(fs::exists(corpus.scratch / "out/work/pass1/a/0.documents"));
    for (const auto& [name, bytes] : files_below(corpus.scratch / "out"))
      CHECK(name.find(".tmp-") == std::string::npos);
    CHECK(run_corpus(settings, corpus.request("out")).documents.documents > 0);
  }

  TEST_CASE("corpus: a signal stops between two documents") {
    const SmallCorpus corpus;
    fill(corpus);
    const CorpusSettings settings = corpus.settings(kAllSteps, "threads = 2");
    const int code = run_in_child([&] {
      install_signal_handlers(0);
      ::raise(SIGTERM);
      try {
        run_corpus(settings, corpus.request("out"));
      } catch (const Stopped& stopped) {
        ::_exit(std::string(stopped.what()).starts_with("stopped after 0 of 8 files") ? 75 : 76);
      }
    });
    CHECK(code == 75);
    CHECK(run_corpus(settings, corpus.request("out")).documents.documents > 0);
  }
}

}  // namespace coppice
