#include "src/tasks/task_file.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "src/tasks/known_tasks.h"
#include "src/tasks/task_requests.h"
#include "src/tasks/task_yaml.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"
#include "tests/text/packed.h"

namespace coppice {

namespace {

constexpr const char* kItem = R"({"context": "The sky is", "choices": ["blue", "loud"], "answer": 0})";

PreparedTask prepare(const std::string& argument, const TaskOptions& options = {}) {
  return prepare_task(open_task_file(argument), options);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("choices: items with and without what is optional, plain and packed") {
    const ScratchFolder folder;
    const std::string text =
        std::string(kItem) + "\n\n" +
        R"({"id": 7, "context": "", "choices": ["\u00e4", "b", "c"], "answer": 2, "delimiter": "", "documents": ["a/b", "c"]})" +
        "\r\n";
    for (const auto& [name, bytes] : {std::pair{"colours.jsonl", text},
                                      {"colours.jsonl.gz", test::gzip_bytes(text)},
                                      {"colours.jsonl.zst", test::zstd_bytes(text)}}) {
      for (const TaskFile& file : {choices_file(folder.write(name, bytes)), open_task_file(folder / name)}) {
        const PreparedTask task = prepare_task(file);
        CHECK(task.definition.name == "colours");
        CHECK_FALSE(file.recognised);
        REQUIRE(task.documents.size() == 2);
        REQUIRE(task.documents[0].requests.size() == 2);
        CHECK(task.documents[0].requests[1].context == "The sky is");
        CHECK(task.documents[0].requests[1].continuation == " loud");
        CHECK(task.documents[0].gold == std::vector<size_t>{0});
        CHECK(task.documents[1].where.ends_with(std::string(name) + ":3"));
        CHECK(task.documents[1].requests[0].continuation == "\u00e4");
        CHECK(task.documents[1].gold == std::vector<size_t>{2});
        CHECK(task.documents[1].document["documents"] == Json::array({"a/b", "c"}));
      }
    }
  }

  TEST_CASE("choices: what is wrong is refused with file and line") {
    const ScratchFolder folder;
    const auto refused = [&](const std::string& line, const std::string& part) {
      const auto refusal = caught(
          [&] { prepare_task(choices_file(folder.write("bad.jsonl", std::string(kItem) + "\n" + line + "\n"))); });
      INFO(line << " -> " << refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says("bad.jsonl:2"));
      CHECK(refusal.says(part));
    };
    refused(R"({"choices": ["a", "b"], "answer": 0})", "context");
    refused(R"({"context": 5, "choices": ["a", "b"], "answer": 0})", "context");
    refused(R"({"context": "c", "answer": 0})", "choices");
    refused(R"({"context": "c", "choices": [], "answer": 0})", "got 0, expected at least 2");
    refused(R"({"context": "c", "choices": ["a"], "answer": 0})", "got 1, expected at least 2");
    refused(R"({"context": "c", "choices": ["a", ""], "answer": 0})", "choices[1]: is empty");
    refused(R"({"context": "c", "choices": ["a", 3], "answer": 0})", "choices[1]: expected a string");
    refused(R"({"context": "c", "choices": ["a", "b"]})", "answer");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": 2})",
            "got 2, expected the number of a choice, 0 to 1");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": -1})", "answer");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": "a"})", "answer");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": 0, "delimiter": null})", "delimiter");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": 0, "documents": "d"})", "documents");
    refused("{\"context\": \"\xff\", \"choices\": [\"a\", \"b\"], \"answer\": 0}", "UTF-8");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": 0} {})", "");
    refused(R"(["context"])", "expected one JSON object");
    refused(std::string(100, '[') + std::string(100, ']'), "");
    CHECK(caught([&] { read_task_lines(folder.write("none.jsonl", "\n \n")); }).says("holds no item"));
    CHECK(caught([&] { open_task_file(folder.write("none.jsonl", "")); }).code == 3);
    CHECK(caught([&] { open_task_file(folder / "absent.jsonl"); }).says("no such task file"));
    CHECK(caught([&] { choices_file(folder.write("task.json", kItem)); }).says(".jsonl"));
    CHECK(caught([&] { open_task_file("helloswag=x.jsonl"); }).code == 2);
    CHECK(caught([&] { open_task_file(folder.write("odd.jsonl", R"({"a": 1})")); }).says("NAME one of choices"));
  }

  TEST_CASE("known tasks: each is recognised by its fields, and becomes what the harness makes of it") {
    const ScratchFolder folder;
    struct Case {
      const char *name, *file, *line;
      std::string context, continuation;  // of the last request
      size_t requests;
    };
    const std::vector<Case> cases = {
        {"arc_easy", "t.jsonl",
         R"({"id": "x", "question": "What?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"})",
         "Question: What?\nAnswer:", " b", 2},
        {"arc_challenge", "ARC-Challenge.jsonl",
         R"({"id": "x", "question": "What?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"})",
         "Question: What?\nAnswer:", " b", 2},
        {"hellaswag", "h.jsonl",
         R"({"activity_label": "Art", "ctx_a": "A [title] man", "ctx_b": "HE runs", "endings": ["[step] a   b", "c [x"], "label": "1"})",
         "Art: A. man He runs", " c [x", 2},
        {"piqa", "p.jsonl", R"({"goal": "Go", "sol1": "left", "sol2": "right", "label": 1})",
         "Question: Go\nAnswer:", " right", 2},
        {"winogrande", "w.jsonl",
         R"({"sentence": "It is _ that  ran. ", "option1": "he", "option2": "she", "answer": "2"})", "It is she",
         " that  ran.", 2},
        {"sciq", "s.jsonl",
         R"({"question": "Q", "support": "  S", "distractor1": "a", "distractor2": "b", "distractor3": "c", "correct_answer": "d"})",
         "S\nQuestion: Q\nAnswer:", " d", 4},
        {"mmlu", "m.jsonl",
         R"({"question": " Q ", "subject": "high_art", "choices": ["w", "x", "y", "z"], "answer": 3})",
         "The following are multiple choice questions (with answers) about high art.\n\nQ\nA. w\nB. x\nC. y\nD. "
         "z\nAnswer:",
         " D", 4},
        {"lambada_openai", "lambada_test.jsonl", R"({"text": "the end of it"})", "the end of", " it", 1},
    };
    for (const Case& one : cases) {
      INFO(one.name);
      const TaskFile file = open_task_file(folder.write(one.file, std::string(one.line) + "\n"));
      CHECK(file.recognised);
      CHECK(file.definition.name == one.name);
      const PreparedTask task = prepare_task(file);
      REQUIRE(task.documents.size() == 1);
      REQUIRE(task.documents[0].requests.size() == one.requests);
      CHECK(task.documents[0].requests.back().context == one.context);
      CHECK(task.documents[0].requests.back().continuation == one.continuation);
      if (one.requests > 1) CHECK(task.documents[0].gold == std::vector<size_t>{one.requests - 1});
    }
    const std::string text = folder.write("pages.jsonl", "{\"text\": \"One page.\"}\n").string();
    CHECK(open_task_file(text).definition.name == "ppl");
    CHECK(prepare(text).documents[0].requests[0].continuation == "One page.");
    CHECK(prepare("ppl=" + folder.write("a.txt", "A page.\n").string()).documents[0].requests[0].continuation ==
          "A page.\n");
  }

  TEST_CASE("few-shot: examples of the same subject in order, and those that a seed draws") {
    const ScratchFolder folder;
    const auto line = [](const char* question, const char* subject) {
      return R"({"question": ")" + std::string(question) + R"(", "subject": ")" + subject +
             R"(", "choices": ["w", "x", "y", "z"], "answer": 1})" + "\n";
    };
    TaskFile file = open_task_file("mmlu=" + folder.write("test.jsonl", line("Q", "art")).string());
    file.fewshot = folder.write("dev.jsonl", line("one", "law") + line("two", "art") + line("three", "art"));
    CHECK(prepare_task(file, {.num_fewshot = 1}).documents[0].requests[0].context ==
          "The following are multiple choice questions (with answers) about art.\n\ntwo\nA. w\nB. x\nC. y\nD. "
          "z\nAnswer: B\n\nQ\nA. w\nB. x\nC. y\nD. z\nAnswer:");
    CHECK(caught([&] { prepare_task(file, {.num_fewshot = 3}); }).says("holds 2 examples for a document, 3 are asked"));
    file.fewshot.clear();
    CHECK(caught([&] { prepare_task(file, {.num_fewshot = 3}); }).says("--num-fewshot 0"));
    const std::string sums = R"({"question": "1+1?", "answer": "2\n#### 2"})";
    CHECK(caught([&] { prepare("gsm8k=" + folder.write("g.jsonl", sums + "\n").string()); }).says("5 examples"));
    CHECK(prepare("gsm8k=" + (folder / "g.jsonl").string(), {.num_fewshot = 0}).documents[0].references ==
          std::vector<std::string>{"2\n#### 2"});
  }

  TEST_CASE("YAML: a task with its data, typed as PyYAML types it; what is outside the subset is refused by name") {
    const ScratchFolder folder;
    folder.write("data.jsonl", R"({"q": "Q", "a": ["x", "y"], "gold": [0, 1]})"
                               "\n");
    folder.write("base_yaml", "output_type: multiple_choice\ndoc_to_text: \"{{q}}:\"\nmetadata:\n  version: 1.0\n");
    const std::string good =
        "include: base_yaml\ntask: mine\ndataset_path: json\ntest_split: test\n"
        "dataset_kwargs:\n  data_files:\n    test: data.jsonl\n"
        "doc_to_choice: a\ndoc_to_target: gold\ntarget_delimiter: ''\nshould_decontaminate: yes\n"
        "metric_list:\n  - metric: acc\n    aggregation: mean\n";
    const PreparedTask task = prepare(folder.write("mine.yaml", good).string());
    CHECK(task.definition.name == "mine");
    CHECK(task.definition.version == 1.0);
    CHECK(task.definition.config["should_decontaminate"] == true);
    CHECK(task.documents[0].requests[1].context == "Q:");
    CHECK(task.documents[0].requests[1].continuation == "y");
    CHECK(task.documents[0].gold == std::vector<size_t>{0, 1});
    const auto refused = [&](const std::string& more, const std::string& part) {
      const Caught error = caught([&] { open_task_file(folder.write("bad.yaml", good + more).string()); });
      INFO(more << " -> " << error.text);
      CHECK(error.code == 3);
      CHECK(error.says("bad.yaml"));
      CHECK(error.says(part));
    };
    refused("process_results: !function utils.f\n", "process_results");
    refused("process_docs: !function utils.f\n", "the Python function 'utils.f' cannot be run here");
    refused("gen_prefix: x\n", "gen_prefix");
    refused("repeats: 5\n", "repeats");
    refused("num_fewshot: many\n", "num_fewshot");
    refused("fewshot_config:\n  sampler: balanced\n", "'balanced'");
    refused("filter_list:\n  - name: x\n", "filter_list");
    refused("description: !python/object x\n", "tag");
    refused("task: twice\n", "twice");
    refused("description: [\n", "");
    refused("description: " + std::string(100, '[') + std::string(100, ']') + "\n", "deeper");
    std::string bomb = "tag: &a0 [x]\n";  // aliases that double with each line
    for (int i = 1; i < 25; ++i)
      bomb += "k" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) + ", *a" +
              std::to_string(i - 1) + "]\n";
    CHECK(caught([&] { read_task_yaml(folder.write("bomb.yaml", bomb)); }).code == 3);
    CHECK(caught([&] { read_task_yaml(folder.write("up.yaml", "include: ../x\n")); }).says("include"));
    CHECK(caught([&] { read_task_yaml(folder.write("self.yaml", "include: self.yaml\n")); }).says("deeper than 4"));
    CHECK(read_task_yaml(folder.write("types.yaml", "a: 1\nb: '1'\nc: 1e3\nd: 1.5\ne: ~\nf: Yes\ng: 010\nh: -3\n")) ==
          Json::parse(R"({"a": 1, "b": "1", "c": "1e3", "d": 1.5, "e": null, "f": true, "g": "010", "h": -3})"));
  }
}

}  // namespace coppice
