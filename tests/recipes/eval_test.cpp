// coppice eval as a program: what it prints and writes for the model of tests/evaluate/harness, and what it refuses.
#include <doctest/doctest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/recipes/program.h"

using namespace coppice::test;
using nlohmann::json;

namespace {

const fs::path kHarness = fs::path(COPPICE_SOURCE_DIR) / "tests/evaluate/harness";

std::string harness(const char* name) { return (kHarness / name).string(); }

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("eval: models and tasks in one call; table, results and samples as lm-evaluation-harness has them") {
    const Scratch scratch("eval");
    fs::create_directory_symlink(kHarness / "model", scratch / "again");
    const Outcome outcome = run(scratch.path, {"eval", harness("model"), "again", "--tasks", harness("arc_easy.jsonl"),
                                               "hellaswag=" + harness("hellaswag.jsonl"), "--limit", "40", "--json",
                                               "results.json", "--log-samples", "samples.jsonl"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    CHECK(outcome.err.find("looks like arc_easy, 40 of 50 documents") != std::string::npos);
    CHECK(outcome.out.find("| arc_easy  | 1.0     | none   |      0 | acc      |") != std::string::npos);
    const json results = json::parse(slurp(scratch / "results.json"));
    REQUIRE(results.size() == 2);
    CHECK(results[0]["results"] == results[1]["results"]);
    CHECK(results[1]["model_name"] == "again");
    CHECK(results[1]["config"]["device"] == "cpu");
    CHECK(results[1]["config"]["model_dtype"] == "float32");
    CHECK(results[0]["n-samples"]["arc_easy"] == json{{"original", 50}, {"effective", 40}});
    std::istringstream lines(slurp(scratch / "samples.jsonl"));
    std::map<std::string, double> right;  // by model and task
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
      const json sample = json::parse(line);
      right[sample["model"].get<std::string>() + sample["task"].get<std::string>()] += sample["acc"].get<double>();
    }
    CHECK(count == 2 * 2 * 40);
    CHECK(right.at("againarc_easy") / 40 == results[1]["results"]["arc_easy"]["acc,none"].get<double>());
  }

  TEST_CASE("eval: in bfloat16 as a device computes, near float32; a device that is not here is refused") {
    const Scratch scratch("eval_bf16");
    const auto likelihoods = [&](const char* compute) {
      const Outcome outcome =
          run(scratch.path, {"eval", harness("model"), "--tasks", harness("arc_easy.jsonl"), "--limit", "2",
                             "--compute", compute, "--log-samples", "samples.jsonl"});
      INFO(outcome.err);
      REQUIRE(outcome.code == 0);
      std::vector<double> all;
      std::istringstream lines(slurp(scratch / "samples.jsonl"));
      for (std::string line; std::getline(lines, line);) {
        const json sample = json::parse(line);
        for (const json& response : sample.at("filtered_resps")) all.push_back(response.at(0).get<double>());
      }
      return all;
    };
    const std::vector<double> wide = likelihoods("fp32"), narrow = likelihoods("bf16");
    REQUIRE(wide.size() >= 6);
    REQUIRE(narrow.size() == wide.size());
    CHECK(wide != narrow);
    for (size_t i = 0; i < wide.size(); ++i) CHECK(narrow[i] == doctest::Approx(wide[i]).epsilon(0.02));
    const Outcome absent =
        run(scratch.path, {"eval", harness("model"), "--tasks", harness("arc_easy.jsonl"), "--device", "cuda:99"});
    CHECK(absent.code == 1);
    CHECK(absent.err.find("--device cuda:99: ") != std::string::npos);
  }

  TEST_CASE("eval: MMLU's subjects are tasks in a group, the limit is each one's; the log says how far it is") {
    const Scratch scratch("eval");
    fs::create_directory_symlink(kHarness / "model", scratch / "again");
    const Outcome outcome = run(scratch.path, {"eval", harness("model"), "again", "--tasks", harness("mmlu.jsonl"),
                                               "--limit", "10", "--json", "results.json"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    CHECK(outcome.err.find("looks like mmlu, 2 subtasks, 20 of 50 documents") != std::string::npos);
    CHECK(outcome.err.find("[eval] 40 documents scored, 2 models") != std::string::npos);
    CHECK(outcome.out.find("| mmlu             | 2       | none   |      0 | acc    |") != std::string::npos);
    CHECK(outcome.out.find("|  - field_botany  | 1.0     | none   |      0 | acc    |") != std::string::npos);
    const json results = json::parse(slurp(scratch / "results.json"))[1];
    const auto accuracy = [&](const char* name) { return results["results"][name]["acc,none"].get<double>(); };
    CHECK(results["groups"]["mmlu"]["sample_len"] == 20);
    CHECK(accuracy("mmlu") == doctest::Approx((accuracy("mmlu_field_botany") + accuracy("mmlu_world_colours")) / 2));
    CHECK(results["group_subtasks"]["mmlu"] == json::array({"mmlu_field_botany", "mmlu_world_colours"}));
    CHECK(results["n-samples"]["mmlu_field_botany"] == json{{"original", 25}, {"effective", 10}});
  }

  TEST_CASE("eval: --json - alone stands on stdout; a whole file gives the harness' own accuracy") {
    const Scratch scratch("eval");
    const Outcome outcome =
        run(scratch.path, {"eval", harness("model"), "--tasks", harness("piqa.jsonl"), "--json", "-"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    const json expected = json::parse(slurp(kHarness / "results.json"))["results"]["piqa"];
    const json piqa = json::parse(outcome.out)["results"]["piqa"];
    CHECK(piqa["acc,none"] == expected["acc,none"]);
    CHECK(piqa["acc_norm,none"] == expected["acc_norm,none"]);
  }

  TEST_CASE("eval: what it cannot do is one line, before a model is loaded") {
    const Scratch scratch("eval");
    spill(scratch / "bad.jsonl", "{\"context\": \"c\", \"choices\": [\"a\", \"b\"], \"answer\": 2}\n");
    const auto refused = [&](std::vector<std::string> arguments, int code, const std::string& part) {
      arguments.insert(arguments.begin(), {"eval", "no/model"});
      const Outcome outcome = run(scratch.path, arguments);
      INFO(outcome.err);
      CHECK(outcome.code == code);
      CHECK(outcome.err.find(part) != std::string::npos);
      CHECK(outcome.out.empty());
    };
    refused({"--tasks", "bad.jsonl"}, 3, "bad.jsonl:1: answer: got 2");
    refused({"--tasks", "absent.jsonl"}, 3, "no such task file");
    refused({"--tasks", "helloswag=bad.jsonl"}, 2, "'helloswag' is no task that coppice knows");
    refused({"--tasks", harness("piqa.jsonl"), harness("piqa.jsonl")}, 2, "two tasks named 'piqa'");
    refused({"--tasks", harness("piqa.jsonl"), "--fewshot", "arc=x.jsonl"}, 2, "--fewshot");
    refused({"--tasks", harness("gsm8k.jsonl")}, 2, "--num-fewshot 0");
    spill(scratch / "stem.jsonl",
          R"({"question": "Q", "subject": "stem", "choices": ["w", "x", "y", "z"], "answer": 1})"
          "\n"
          R"({"question": "Q", "subject": "anatomy", "choices": ["w", "x", "y", "z"], "answer": 1})");
    refused({"--tasks", "mmlu=stem.jsonl"}, 2, "two tasks named 'mmlu_stem'");
    refused({"--tasks", harness("piqa.jsonl")}, 3, "no/model: no such model");
    const Outcome second = run(scratch.path, {"eval", harness("model"), "no/model", "--tasks", harness("piqa.jsonl")});
    CHECK(second.code == 3);
    CHECK(second.err.find("no/model: no such model") != std::string::npos);
    CHECK(second.err.find("[eval]") == std::string::npos);  // and the first one is not scored in vain
  }
}
