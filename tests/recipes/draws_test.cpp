// Labels that are drawn, through the real program: the same bytes whatever happened on the way, trainings from stored
// and live draws, and what cannot be is refused before anything starts.
#include <doctest/doctest.h>

#include "recipes/run/cost.h"
#include "recipes/run/run_recipe.h"
#include "src/data/label_cache.h"
#include "tests/recipes/label_recipes.h"

using namespace coppice::test;

namespace {

std::string label_stage(const std::string& name, const std::string& options) {
  return "[[stage]]\nname = \"" + name + "\"\nkind = \"label\"\ntier = \"sample\"\n" + options + "\n\n";
}

std::string student_stage(const std::string& name, const std::string& options) {
  return "[[stage]]\nname = \"" + name +
         "\"\nkind = \"train\"\nmodel = \"student\"\ntokens = 5120\nseq_len = 64\nbatch_tokens = "
         "512\nmicro_batch_tokens = 64\nloss = \"sample\"\n" +
         options + "\n\n";
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("draws: stored and live they train alike, and come back as JSONL") {
    const Scratch scratch("draws");
    write_corpus(scratch.path / "corpus");
    const std::string dense = "teacher = \"dense\"\ncontext = 64\n";
    spill(scratch.path / "kd.toml",
          label_recipe(
              label_stage("one", dense + "draws = 1") +
              label_stage("soft", dense + "window_rule = \"aligned\"\ndraws = 8\ndraw_seed = 7\ntemperature = 2.0") +
              student_stage("from_one", "labels = \"one\"") +
              student_stage("from_soft", "labels = \"soft\"\nkd_temperature = 2.0") +
              label_stage("flat",
                          dense + "window_rule = \"aligned\"\ndraws = 8\ndraw_seed = 7\nproposal_temperature = 1.5") +
              student_stage("from_flat", "labels = \"flat\"") +
              student_stage("live_flat", "teacher = \"dense\"\ndraws = 8\nproposal_temperature = 1.5") +
              student_stage("live", "teacher = \"dense\"\ndraws = 8\nkd_temperature = 2.0") +
              student_stage("live_again", "teacher = \"dense\"\ndraws = 8\nkd_temperature = 2.0\nseed = 8")));
    const Outcome outcome = run(scratch.path, {"run", "kd.toml", "--out", "runs/kd"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    const fs::path root = scratch.path / "runs/kd";
    CHECK(outcome.err.find("the loss passed its self-test") != std::string::npos);
    // aligned windows one at a time, the recipe's seed 7: what is stored is what the live teacher draws
    CHECK(!weights_of(root / "live").empty());
    CHECK(weights_of(root / "from_soft") == weights_of(root / "live"));
    CHECK(weights_of(root / "live") != weights_of(root / "live_again"));
    CHECK(weights_of(root / "live") != weights_of(root / "from_one"));
    CHECK(first_kd(root / "from_one") > 0);
    CHECK(first_kd(root / "from_soft") > 2 * first_kd(root / "from_one"));  // carries the square of its temperature

    // with weights they differ by what half precision leaves of these
    CHECK(weights_of(root / "from_flat") != weights_of(root / "from_one"));
    CHECK(first_kd(root / "from_flat") == doctest::Approx(first_kd(root / "live_flat")).epsilon(1e-3));
    CHECK(first_kd(root / "from_flat") == doctest::Approx(first_kd(root / "from_one")).epsilon(0.1));  // unbiased
    const Outcome flat = run(scratch.path, {"inspect", "runs/kd/flat/labels/code"});
    CHECK(flat.out.find("draws a label: 8, each with its weight") != std::string::npos);
    CHECK(flat.out.find("\"proposal_temperature\": \"1.5\"") != std::string::npos);

    const Outcome shown = run(scratch.path, {"inspect", "runs/kd/soft/labels/code"});
    CHECK(shown.out.find("draws a label: 8") != std::string::npos);
    CHECK(shown.out.find("\"draw_seed\": 7") != std::string::npos);
    CHECK(shown.out.find("near ties") == std::string::npos);

    for (const char* domain : {"prose", "code"})
      REQUIRE(run(scratch.path, {"labels", "export", std::string("given/") + domain + ".jsonl.zst", "--tokens",
                                 std::string("runs/kd/data/tokens/") + domain, "--cache",
                                 std::string("runs/kd/soft/labels/") + domain})
                  .code == 0);
    REQUIRE(run(scratch.path, {"labels", "import", "given/code.jsonl.zst", "--tokens", "runs/kd/data/tokens/code",
                               "--cache", "again"})
                .code == 0);
    CHECK(files_of(scratch.path / "again") == files_of(root / "soft/labels/code"));
    REQUIRE(run(scratch.path, {"labels", "export", "flat/code.jsonl", "--tokens", "runs/kd/data/tokens/code", "--cache",
                               "runs/kd/flat/labels/code"})
                .code == 0);
    REQUIRE(run(scratch.path, {"labels", "import", "flat/code.jsonl", "--tokens", "runs/kd/data/tokens/code", "--cache",
                               "flat/again"})
                .code == 0);
    CHECK(files_of(scratch.path / "flat/again") == files_of(root / "flat/labels/code"));
    spill(scratch.path / "given.toml",
          label_recipe(label_stage("soft", "import = \"given\"\ndraws = 8\ntemperature = 2.0") +
                       student_stage("from_soft", "labels = \"soft\"\nkd_temperature = 2.0")));
    const Outcome imported = run(scratch.path, {"run", "given.toml", "--out", "runs/given"});
    INFO(imported.err);
    REQUIRE(imported.code == 0);
    CHECK(weights_of(scratch.path / "runs/given/from_soft") == weights_of(root / "from_soft"));
    // where they lie, as they are
    spill(scratch.path / "cache.toml",
          label_recipe(label_stage("soft", "cache = \"runs/kd/soft/labels\"\ndraws = 4\ntemperature = 2.0") +
                       student_stage("from_soft", "labels = \"soft\"\nkd_temperature = 2.0")));
    const Outcome other = run(scratch.path, {"run", "cache.toml", "--out", "runs/cache"});
    CHECK(other.code == 3);
    CHECK(other.err.find("another k: found 8, expected 4") != std::string::npos);
    // flags that do not fit
    const auto refused = [&](std::vector<std::string> flags, const std::string& word) {
      std::vector<std::string> words = {
          "labels", "import", "given/code.jsonl.zst", "--tokens", "runs/kd/data/tokens/code", "--cache", "none"};
      words.insert(words.end(), flags.begin(), flags.end());
      const Outcome refusal = run(scratch.path, words);
      INFO(refusal.err);
      CHECK(refusal.code == 2);
      CHECK(refusal.err.find(word) != std::string::npos);
    };
    refused({"--top-k", "4"}, "have --draws instead");
    refused({"--draws", "257"}, "got 257, expected 1, or more in tier sample (up to 256)");
    refused({"--tier", "topk", "--draws", "4"}, "expected --tier sample");
    refused({"--format", "vllm"}, "tier sample needs draws");
    refused({"--tier", "topk", "--proposal-temperature", "1.5"}, "is of draws of tier sample, not of tier topk");
  }

  TEST_CASE("draws: what a stage asks for and cannot have is refused before anything starts") {
    const Scratch scratch("draws_refused");
    write_corpus(scratch.path / "corpus");
    const auto refused = [&](const std::string& stages, const std::string& word) {
      spill(scratch.path / "kd.toml", label_recipe(stages));
      const Outcome outcome = run(scratch.path, {"run", "kd.toml"});
      INFO(outcome.err);
      CHECK(outcome.code == 2);
      CHECK(outcome.err.find(word) != std::string::npos);
    };
    const std::string drawn = label_stage("drawn", "teacher = \"dense\"\ncontext = 64"),
                      chosen = "[[stage]]\nname = \"chosen\"\nkind = \"label\"\nteacher = \"dense\"\ncontext = 64\n\n";
    const auto student = [](const std::string& options) {
      return "[[stage]]\nname = \"s\"\nkind = \"train\"\nmodel = \"student\"\ntokens = 512\nseq_len = 64\nbatch_tokens "
             "= 512\n" +
             options + "\n\n";
    };
    refused(label_stage("drawn", "teacher = \"dense\"\ndraws = 0"), "draws: got 0, expected 1 to 256");
    refused(label_stage("drawn", "teacher = \"dense\"\ndraws = 257"), "draws: got 257, expected 1 to 256");
    refused(student("teacher = \"dense\"\nloss = \"sample\"\ndraws = 0"), "draws: got 0, expected 1 to 256");
    refused(label_stage("drawn", "teacher = \"dense\"\nproposal_temperature = 0.9"),
            "proposal_temperature: got 0.9, expected 1 to 10");
    refused(student("teacher = \"dense\"\nloss = \"sample\"\nproposal_temperature = 11.0"),
            "proposal_temperature: got 11, expected 1 to 10");
    refused(drawn + student("labels = \"drawn\""), "stores draws; use sample");
    refused(drawn + student("labels = \"drawn\"\nloss = \"top_k\""), "stores draws; use sample");
    refused(drawn + student("labels = \"drawn\"\nloss = \"sample\"\nkd_temperature = 2.0"),
            "stores probabilities at 1");
    refused(chosen + student("labels = \"chosen\"\nloss = \"sample\""), "stores tier top1; give it tier = \"sample\"");
    refused(student("loss = \"sample\""), "needs `labels` or `teacher`");
    refused(label_stage("given", "import = \"corpus\"\nimport_format = \"vllm\""), "tier sample needs draws");
    refused(label_stage("given", "import = \"corpus\"\ndraw_seed = 2"), "draw_seed: labels from `import`");
    CHECK(!fs::exists(scratch.path / "runs"));
  }
}

TEST_SUITE("faults") {
  TEST_CASE("draws: with weights too the same bytes again; the plan counts two bytes more a draw") {
    const Scratch scratch("weighted_bytes");
    const auto wanted = check_same_bytes(
        scratch, "teacher = \"dense\"\ncontext = 64\ntier = \"sample\"\ndraws = 4\nproposal_temperature = 1.2");
    const coppice::Recipe planned = coppice::load_recipe((scratch.path / "one.toml").string(), {}, {});
    const coppice::RecipeCost costs = coppice::estimate_cost(planned, /*corpus_bytes=*/250'000, 0);
    const auto cost = std::ranges::find(costs.stages, "labels", &coppice::StageCost::name);
    REQUIRE(cost != costs.stages.end());
    CHECK(cost->disk_bytes == 17 * cost->tokens);  // four different ids with their weights, and three bits
    double bytes = 0;
    for (const auto& [name, content] : wanted) bytes += static_cast<double>(content.size());
    const auto tokens =
        nlohmann::json::parse(slurp(scratch.path / "runs/straight/labels/manifest.json")).at("tokens").get<double>();
    CHECK(bytes > 5 * tokens);
    CHECK(bytes <= 17 * tokens + 10'000 * static_cast<double>(wanted.size()));
  }

  TEST_CASE("draws: the same bytes again from another batch, after a kill, and shared out among processes") {
    const Scratch scratch("draws_bytes");
    const auto wanted = check_same_bytes(scratch, "teacher = \"dense\"\ncontext = 64\ntier = \"sample\"\ndraws = 1");

    // the plan counts two bytes a token; what is written are these and a few kB a shard
    const coppice::Recipe planned = coppice::load_recipe((scratch.path / "one.toml").string(), {}, {});
    const coppice::RecipeCost costs = coppice::estimate_cost(planned, /*corpus_bytes=*/250'000, 0);
    const auto cost = std::ranges::find(costs.stages, "labels", &coppice::StageCost::name);
    REQUIRE(cost != costs.stages.end());
    CHECK(cost->tokens > 0);
    CHECK(cost->disk_bytes == 2 * cost->tokens);
    const auto tokens =
        nlohmann::json::parse(slurp(scratch.path / "runs/straight/labels/manifest.json")).at("tokens").get<double>();
    double bytes = 0;
    for (const auto& [name, content] : wanted) bytes += static_cast<double>(content.size());
    CHECK(bytes >= 2 * tokens);
    CHECK(bytes <= 2 * tokens + 10'000 * static_cast<double>(wanted.size()));
  }
}
