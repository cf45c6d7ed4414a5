// Benchmarks as they are published: question and right answer of each form.
#include "src/corpus/decontaminate/benchmarks.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/corpus/decontaminate/csv.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

/// `question|question with answer`
std::string read(const std::string& line) {
  const std::optional<BenchmarkItem> item = read_benchmark_item(Json::parse(line));
  return item ? item->question + "|" + item->with_answer : "none";
}

template <class Call>
std::string refusal(Call call) {
  try {
    call();
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("benchmark forms: question and right answer") {
    CHECK(read(R"({"text":"a b"})") == "a b|");
    CHECK(read(R"({"question":"q?","answer":"a"})") == "q?|q? a");
    CHECK(read(R"({"question":"q?","answer":["a","b"]})") == "q?|q? a");
    // MMLU: a number, its letter
    CHECK(read(R"({"question":"q?","subject":"s","choices":["w","x","y","z"],"answer":2})") == "q?|q? y");
    CHECK(read(R"({"question":"q?","choices":["w","x","y","z"],"answer":"D"})") == "q?|q? z");
    CHECK(read(R"({"question":"q?","choices":["w","x"],"answer":"x"})") == "q?|q? x");
    CHECK(read(R"({"question":"q?","choices":["w","x"],"answer":7})") == "q?|");
    // ARC: AI2's files and the hub's; OpenBookQA; CommonsenseQA
    CHECK(
        read(
            R"({"id":"1","question":{"stem":"q?","choices":[{"text":"x","label":"A"},{"text":"y","label":"B"}]},"answerKey":"B"})") ==
        "q?|q? y");
    CHECK(read(R"({"question":"q?","choices":{"text":["x","y"],"label":["1","2"]},"answerKey":"1"})") == "q?|q? x");
    CHECK(read(R"({"question_stem":"q?","choices":{"text":["x","y"],"label":["A","B"]},"answerKey":"B"})") ==
          "q?|q? y");
    // HellaSwag; test sets without labels
    CHECK(
        read(R"({"ind":1,"activity_label":"l","ctx_a":"c","ctx_b":"d","ctx":"c d","endings":["e","f"],"label":"1"})") ==
        "c d|c d f");
    CHECK(read(R"({"ctx":"c d","endings":["e","f"],"label":""})") == "c d|");
    CHECK(read(R"({"question":"How?","answer":"48/2 = <<48/2=24>>24 clips.\n#### 24"})") ==
          "How?|How? 48/2 = 24 clips.\n#### 24");                                                         // GSM8K
    CHECK(read(R"({"question":"is it","title":"t","answer":true,"passage":"p"})") == "is it|is it yes");  // BoolQ
    CHECK(read(R"({"goal":"g","sol1":"x","sol2":"y","label":0})") == "g|g x");                            // PIQA
    CHECK(read(R"({"goal":"g","sol1":"x","sol2":"y"})") == "g|");
    CHECK(read(R"({"sentence":"The _ fell.","option1":"cup","option2":"hat","answer":"2"})") ==
          "The _ fell.|The hat fell.");  // WinoGrande
    CHECK(read(R"({"sentence":"The _ fell.","option1":"cup","option2":"hat","answer":""})") == "The _ fell.|");
    CHECK(read(R"({"context":"c.","question":"q?","answerA":"x","answerB":"y","answerC":"z","label":"3"})") ==
          "c. q?|c. q? z");                                                                       // SIQA
    CHECK(read(R"({"question":"q?","answer":{"value":"v","aliases":["v","w"]}})") == "q?|q? v");  // TriviaQA
    CHECK(read(R"({"task_id":"1","prompt":"def f():","canonical_solution":" return 1","test":"t"})") ==
          "def f():|def f():  return 1");
    CHECK(read(R"({"task_id":1,"text":"Write f","code":"def f","test_list":["a"]})") ==
          "Write f|Write f def f");                                                              // MBPP
    CHECK(read(R"({"question":"q?","best_answer":"b","correct_answers":["b"]})") == "q?|q? b");  // TruthfulQA
    CHECK(read(R"({"question":"q?","mc1_targets":{"choices":["x","y"],"labels":[0,1]}})") == "q?|q? y");
    CHECK(read(R"({"context":"c","question":"q?","answers":{"text":["x","y"],"answer_start":[1,2]}})") ==
          "q?|q? x");                                                                                    // SQuAD
    CHECK(read(R"({"question":"q?","options":["x","y"],"answer":"B","answer_index":1})") == "q?|q? y");  // MMLU-Pro
    CHECK(read(R"({"Question":"q?","Correct Answer":"c","Incorrect Answer 1":"d"})") == "q?|q? c");      // GPQA
    CHECK(read(R"({"problem":"p","solution":"s","level":"1"})") == "p|p s");                             // MATH
    CHECK(read(R"({"context":"c","choices":["x","y"],"answer":1})") == "c|c y");  // a task of `eval`
    CHECK(
        read(
            R"({"support":"s","question":"q?","distractor1":"d","distractor2":"d","distractor3":"d","correct_answer":"c"})") ==
        "q?|q? c");
    CHECK(read(R"({"title":"t"})") == "none");
    CHECK(read(R"({"question":"q?"})") == "none");
  }

  TEST_CASE("csv: quotes, line breaks, blank lines") {
    using Rows = std::vector<std::vector<std::string>>;
    CHECK(*parse_csv("a,\"b, \"\"c\"\"\"\r\n\n\"d\ne\",\n") == Rows{{"a", "b, \"c\""}, {"d\ne", ""}});
    CHECK(*parse_csv("a") == Rows{{"a"}});
    CHECK(parse_csv("")->empty());
    CHECK_FALSE(parse_csv("a,\"b\n").has_value());
  }

  TEST_CASE("benchmarks: files, tables with and without names, names of benchmarks") {
    const ScratchFolder scratch;
    spill(scratch / "arc.jsonl", "\xEF\xBB\xBF{\"text\":\"one\"}\n\n{\"question\":\"q\",\"answer\":\"a\"}\n");
    const Benchmark lines = read_benchmark(scratch / "arc.jsonl");
    CHECK(lines.name == "arc");
    REQUIRE(lines.items.size() == 2);
    CHECK(lines.items[1].with_answer == "q a");
    spill(scratch / "algebra_test.csv", "\"What, then?\",w,x,y,z,C\n");
    const Benchmark table = read_benchmark(scratch / "algebra_test.csv");
    REQUIRE(table.items.size() == 1);
    CHECK(table.items[0].with_answer == "What, then? y");
    spill(scratch / "truthful.csv", "Type,Question,Best Answer\nx,q?,b\n");
    const Benchmark named = read_benchmark(scratch / "truthful.csv");
    REQUIRE(named.items.size() == 1);
    CHECK(named.items[0].with_answer == "q? b");
    const auto files = benchmark_files(
        {(scratch / "*.csv").string(), (scratch / "arc.jsonl").string(), (scratch / "a*").string()}, "my.toml:3");
    REQUIRE(files.size() == 3);
    CHECK(benchmark_name(files[0]) == "algebra_test");
    CHECK(benchmark_name(files[1]) == "arc");
    CHECK(benchmark_name(files[2]) == "truthful");
  }

  TEST_CASE("benchmarks: what is refused") {
    const ScratchFolder scratch;
    const auto files = [&](const std::string& pattern) {
      return refusal([&] { benchmark_files({(scratch / pattern).string()}, "my.toml:3"); });
    };
    const auto file = [&](const std::string& name, const std::string& bytes) {
      spill(scratch / name, bytes);
      return refusal([&] { read_benchmark(scratch / name); });
    };
    CHECK(files("no*.jsonl") == "my.toml:3: benchmarks: '" + (scratch / "no*.jsonl").string() +
                                    "' matches no file; expected files as benchmarks/*.jsonl");
    spill(scratch / "a.bin", "x");
    CHECK(files("a.bin") == "my.toml:3: benchmarks: '" + (scratch / "a.bin").string() +
                                "' is no file that is read; expected .jsonl, .ndjson, .json (each also with .gz or "
                                ".zst behind it) or .csv");
    spill(scratch / "b.jsonl", "{}");
    spill(scratch / "b.json", "{}");
    CHECK(files("b.*").ends_with("are both called b; rename one"));
    CHECK(file("c.jsonl", "{\"title\":\"t\"}\n")
              .find("c.jsonl:1: fields title are of no form that is known; name them as one of: ") !=
          std::string::npos);
    CHECK(file("c.jsonl", "[1]\n").ends_with("c.jsonl:1: got no JSON object, expected one a line"));
    CHECK(file("c.jsonl", "\n").ends_with("c.jsonl: holds no item"));
    CHECK(file("c.jsonl", "{\"text\":\"\xff\"}\n") != "");
    CHECK(file("c.csv", "a,\"b\n").ends_with("c.csv: a quote is not closed; write the table anew"));
    CHECK(file("c.csv", "a,b\n")
              .ends_with("c.csv: row 1: got 2 columns, expected question, A, B, C, D and answer, or a first row that "
                         "names the columns"));
  }
}
