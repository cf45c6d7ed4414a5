// The real program on the tiny recipe: all stages, what they leave, resuming, changed recipes, the verbs around them.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/recipes/program.h"

using namespace coppice::test;

namespace {

nlohmann::json read(const fs::path& path) { return nlohmann::json::parse(slurp(path)); }

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("recipe: the tiny pipeline, from text to an exported student") {
    const Scratch scratch("pipeline");
    write_tiny_run(scratch.path);
    const Outcome first = run(scratch.path, {"run", "tiny.toml"});
    INFO(first.err);
    REQUIRE(first.code == 0);
    const fs::path root = scratch.path / "runs/tiny";
    CHECK(first.out.find("report.html") != std::string::npos);

    const nlohmann::json report = read(root / "report.json");
    CHECK(report["recipe"] == "tiny");
    REQUIRE(report["stages"].size() == 10);
    for (const auto& stage : report["stages"]) {
      CHECK(stage["status"] == "done");
      CHECK(stage.contains("tokens"));
      CHECK(stage["seconds"].get<double>() >= 0);
    }
    REQUIRE(report["models"].size() == 6);
    const auto model = [&](const char* name) {
      for (const auto& row : report["models"])
        if (row["name"] == name) return row;
      return nlohmann::json();
    };
    CHECK(model("dense")["teacher_agreement"].get<double>() == 1.0);
    CHECK(model("dense")["intermediate_size"] == 96);
    CHECK(model("core")["intermediate_size"] == 32);
    // 384 x 32 embedding; per layer 2 norms, q and o 32 x 32, k and v 16 x 32, two head norms of 16, three FFN matrices
    // of 32 x F; last norm
    CHECK(model("dense")["parameters"] == 384 * 32 + 2 * (64 + 2 * 1024 + 2 * 512 + 32 + 3 * 32 * 96) + 32);
    CHECK(model("long")["parameters"] == 384 * 32 + 2 * (64 + 2 * 1024 + 2 * 512 + 32 + 3 * 32 * 32) + 32);
    for (const auto& row : report["models"]) {
      CHECK(row["loss"].get<double>() < std::log(384.0));  // better than guessing
      CHECK(row["bits_per_byte"].get<double>() > 0);
      CHECK(row["domains"].size() == 2);
      CHECK(row["positions"] == report["models"][0]["positions"]);  // what the verdict's noise is counted from
      CHECK(row["positions"].get<int64_t>() > 10000);
      const auto& task = row["tasks"]["words"];
      CHECK(task["items"] == 5);
      CHECK(task["acc"].get<double>() * 5 == doctest::Approx(std::round(task["acc"].get<double>() * 5)));
      CHECK(row["task_accuracy"] == task["acc"]);
    }
    CHECK(model("long")["tasks"]["words"]["acc"].get<double>() >= 0.8);  // English against noise
    CHECK(slurp(root / "report.md").find("words (5 items)") != std::string::npos);
    for (const char* stage : {"dense", "masks", "scores"})
      CHECK(read(root / "run.json")["predicted"][stage]["seconds"].get<double>() > 0);
    CHECK_FALSE(fs::exists(root / "scores/scored.json"));
    const auto agreement = [&](const char* name) { return model(name)["teacher_agreement"].get<double>(); };
    CHECK(agreement("core") > agreement("pruned"));           // labels bring a cut source nearer to its teacher,
    CHECK(agreement("pruned") > agreement("scratch") + 0.1);  // and fresh weights are far from it

    // checks that are printed every time
    CHECK(first.err.find("masked and pruned logits differ by") != std::string::npos);
    const nlohmann::json pruned = read(root / "pruned/manifest.json");
    CHECK(pruned["results"]["masked_pruned_difference"].get<double>() <= 1e-5);
    CHECK(read(root / "release/manifest.json")["results"]["hf"]["reimport_logit_difference"].get<double>() <= 1e-4);
    for (const char* file : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer.model",
                             "tokenizer_config.json", "generation_config.json"})
      CHECK(fs::exists(root / "release/hf" / file));
    for (const char* file : {"report.html", "report.md", "report.svg", "run.json", "recipe.toml", "log.txt"})
      CHECK(fs::file_size(root / file) > 0);

    // masks: k at every logged step, the budget at the end
    std::istringstream lines(slurp(root / "masks/metrics.jsonl"));
    size_t steps = 0;
    nlohmann::json last;
    for (std::string line; std::getline(lines, line); ++steps) {
      last = nlohmann::json::parse(line);
      CHECK(last["sum_error"].get<double>() <= 1e-6);
    }
    CHECK(steps == 40);
    CHECK(last["k"].get<double>() == 32);

    SUBCASE("the same command again says so and changes nothing") {
      const auto before = results_of(root);
      const Outcome again = run(scratch.path, {"run", "tiny.toml"});
      CHECK(again.code == 0);
      CHECK(again.out.find("already complete") != std::string::npos);
      CHECK(results_of(root) == before);
    }
    SUBCASE("a changed option is refused, and with --rerun reruns only what it touches") {
      const std::string dense = slurp(root / "dense/model/manifest.json");
      const Outcome refused = run(scratch.path, {"run", "tiny.toml", "--set", "core.teacher_weight=0.5"});
      CHECK(refused.code == 2);
      CHECK(refused.err.find("core") != std::string::npos);
      CHECK(refused.err.find("dense") == std::string::npos);
      const Outcome rerun = run(scratch.path, {"run", "tiny.toml", "--set", "core.teacher_weight=0.5", "--rerun"});
      INFO(rerun.err);
      CHECK(rerun.code == 0);
      CHECK(slurp(root / "dense/model/manifest.json") == dense);
      CHECK(rerun.err.find("stage 'masks': already complete") != std::string::npos);
      bool moved = false;
      for (const auto& entry : fs::directory_iterator(root))
        moved |= entry.path().filename().string().starts_with(".old-core-");
      CHECK(moved);
    }
    SUBCASE("the verbs around a run") {
      const Outcome written =
          run(scratch.path, {"generate", "runs/tiny/long", "--prompt", "The ", "--max-new-tokens", "8"});
      CHECK(written.code == 0);
      CHECK(written.out.starts_with("The "));
      CHECK(run(scratch.path, {"generate", "runs/tiny/long", "--prompt", "The ", "--max-new-tokens", "8"}).out ==
            written.out);
      CHECK(written.err.find("first token after ") != std::string::npos);
      CHECK(written.err.find(" tokens/s") != std::string::npos);
      const std::string last(written.out.end() - 2, written.out.end() - 1);  // before the line's end
      const std::string stopped = run(scratch.path, {"generate", "runs/tiny/long", "--prompt", "The ", "--top-p",
                                                     "1e-6", "--sampling-temperature", "1", "--stop", "no such text",
                                                     "--stop", last, "--max-new-tokens", "8"})
                                      .out;
      CHECK(stopped == written.out.substr(0, written.out.find(last, 4)) + "\n");
      CHECK(run(scratch.path, {"generate", "runs/tiny/long", "--prompt", "The ", "--stop", ""}).code == 2);
      const auto generate_on = [&](const char* flag, const char* value) {
        return run(scratch.path,
                   {"generate", "runs/tiny/long", "--prompt", "The ", "--max-new-tokens", "8", flag, value});
      };
      CHECK(generate_on("--device", "cpu").out == written.out);
      const Outcome rehearsed = generate_on("--compute", "bf16");
      CHECK(rehearsed.code == 0);
      CHECK(rehearsed.out.starts_with("The "));
      CHECK(rehearsed.err.find("on cpu in bf16") != std::string::npos);
      const Outcome absent = generate_on("--device", "cuda:99");
      CHECK(absent.code == 1);
      CHECK(absent.out.empty());
      CHECK(absent.err.find("--device cuda:99: ") != std::string::npos);
      CHECK(absent.err.find("; give --device cpu or auto") != std::string::npos);
      CHECK(generate_on("--device", "gpu").code == 2);
      CHECK(generate_on("--compute", "fp16").code == 2);
      CHECK(run(scratch.path, {"generate", "runs/tiny/long", "--prompt", "The ", "--top-p", "0"}).code == 2);
      CHECK(run(scratch.path, {"export", "runs/tiny/core", "-o", "out", "--format", "hf", "--dtype", "bf16"}).code ==
            0);
      CHECK(fs::exists(scratch.path / "out/config.json"));
      CHECK(run(scratch.path, {"export", "runs/tiny/core", "-o", "out"}).code ==
            2);  // never over something that is there
      for (const char* path : {"runs/tiny", "runs/tiny/core", "runs/tiny/core/model", "runs/tiny/masks/masks.h5",
                               "runs/tiny/pruned/prune_plan.json", "runs/tiny/labels/labels/code",
                               "runs/tiny/data/tokens/prose", "runs/tiny/data/tokenizer/tokenizer.model",
                               "runs/tiny/release/hf", "runs/tiny/release/hf/model.safetensors"}) {
        const Outcome shown = run(scratch.path, {"inspect", path});
        INFO(path << ": " << shown.err);
        CHECK(shown.code == 0);
        CHECK(!shown.out.empty());
      }
      const std::string shown = run(scratch.path, {"inspect", "runs/tiny"}).out;
      for (const char* words : {"data           2 domains tokenized (", " tokens), 2 held out (", " tokens)\n"})
        CHECK(shown.find(words) != std::string::npos);
      CHECK(shown.find("for tuning") == std::string::npos);
      CHECK(run(scratch.path, {"inspect", "tiny.toml"}).code == 3);
      fs::remove(root / "report.html");
      CHECK(run(scratch.path, {"report", "runs/tiny"}).code == 0);
      CHECK(fs::exists(root / "report.html"));
      CHECK(run(scratch.path, {"report", "corpus"}).code == 3);
    }
  }

  TEST_CASE("recipe: tasks from held-out documents; mistakes in task files are refused before the first stage") {
    const Scratch scratch("tasks");
    write_tiny_run(scratch.path);
    const Outcome made = run(scratch.path, {"data", "tasks", "tiny.toml", "--output", "made"});
    INFO(made.err);
    REQUIRE(made.code == 0);
    for (const char* name : {"made/continuation.jsonl", "made/word.jsonl"})
      CHECK(std::ranges::count(slurp(scratch.path / name), '\n') >= 20);
    const std::string before = slurp(scratch.path / "made/word.jsonl");
    REQUIRE(run(scratch.path, {"data", "tasks", "tiny.toml", "--output", "made"}).code == 0);
    CHECK(slurp(scratch.path / "made/word.jsonl") == before);

    const auto refused = [&](const std::string& tasks, const std::vector<std::string>& more, const char* part) {
      std::vector<std::string> command = {"run", "tiny.toml", "--set", "scores.tasks=" + tasks};
      command.insert(command.end(), more.begin(), more.end());
      const Outcome outcome = run(scratch.path, command);
      INFO(outcome.err);
      CHECK(outcome.code == 3);
      CHECK(outcome.err.find(part) != std::string::npos);
      CHECK_FALSE(fs::exists(scratch.path / "runs/tiny/dense"));
    };
    refused("[\"absent.jsonl\"]", {}, "absent.jsonl: no such task file");
    spill(scratch.path / "bad.jsonl", "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 2}\n");
    refused("[\"bad.jsonl\"]", {}, "bad.jsonl:1: answer: got 2");
    spill(scratch.path / "long.jsonl",
          nlohmann::json({{"context", "a"}, {"choices", {"b", std::string(40000, 'c')}}, {"answer", 0}}).dump() + "\n");
    refused("[\"long.jsonl\"]", {}, "choices[1]: is");
    refused("[\"made/word.jsonl\"]", {"--set", "data.heldout_share=0.01", "--out", "runs/other"},
            "which this recipe trains on");
    CHECK(run(scratch.path, {"config", "tiny.toml", "--set", "scores.tasks=[\"a/x.jsonl\", \"b/x.jsonl\"]"}).code == 2);
  }

  TEST_CASE("recipe: plan and config start nothing") {
    const Scratch scratch("plan");
    write_tiny_run(scratch.path);
    const Outcome plan = run(scratch.path, {"plan", "tiny.toml"});
    CHECK(plan.code == 0);
    for (const char* word : {"dense", "masks", "parameters", "FLOPs", "memory", "disk"})
      CHECK(plan.out.find(word) != std::string::npos);
    const Outcome config = run(scratch.path, {"config", "tiny.toml", "--set", "core.tokens=4.096e4"});
    CHECK(config.code == 0);
    CHECK(config.out.find("--set") != std::string::npos);
    CHECK(config.out.find("tiny.toml:") != std::string::npos);
    CHECK(config.out.find("default") != std::string::npos);
    CHECK(!fs::exists(scratch.path / "runs"));
  }
}
