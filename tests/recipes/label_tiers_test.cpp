// Finer labels through the real program: what is stored in fewer bytes, trained on, moved and told.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "recipes/run/cost.h"
#include "recipes/run/run_recipe.h"
#include "src/data/label_cache.h"
#include "tests/recipes/label_recipes.h"

using namespace coppice::test;

namespace {

std::string label_stage(const std::string& name, const std::string& options) {
  return "[[stage]]\nname = \"" + name + "\"\nkind = \"label\"\n" + options + "\n\n";
}

std::string student_stage(const std::string& name, const std::string& options) {
  return "[[stage]]\nname = \"" + name +
         "\"\nkind = \"train\"\nmodel = \"student\"\ntokens = 5120\nseq_len = 64\nbatch_tokens = 512\n" + options +
         "\n\n";
}

/// What the plan says of a stage.
coppice::StageCost cost_of(const fs::path& recipe, const std::string& stage) {
  const coppice::Recipe planned = coppice::load_recipe(recipe.string(), {}, {});
  const coppice::RecipeCost costs = coppice::estimate_cost(planned, /*corpus_bytes=*/250'000, 0);
  const auto cost = std::ranges::find(costs.stages, stage, &coppice::StageCost::name);
  REQUIRE(cost != costs.stages.end());
  return *cost;
}

uint64_t bytes_of(const fs::path& folder) {
  uint64_t bytes = 0;
  for (const auto& [name, content] : files_of(folder)) bytes += content.size();
  return bytes;
}

/// Both domains of a cache of the run runs/kd to given/<domain>.jsonl.zst.
void export_both(const fs::path& folder, const std::string& cache) {
  for (const std::string& domain : {std::string("prose"), std::string("code")})
    REQUIRE(run(folder, {"labels", "export", "given/" + domain + ".jsonl.zst", "--tokens",
                         "runs/kd/data/tokens/" + domain, "--cache", cache + domain})
                .code == 0);
}
/// One of them back, into another cache.
Outcome import_code(const fs::path& folder, const std::string& cache, const std::vector<std::string>& flags) {
  std::vector<std::string> words = {"labels",  "import", "given/code.jsonl.zst", "--tokens", "runs/kd/data/tokens/code",
                                    "--cache", cache};
  words.insert(words.end(), flags.begin(), flags.end());
  return run(folder, words);
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("label tiers: the decoupled loss reads labels at temperature 1, whatever its own; stored and live alike") {
    const Scratch scratch("decoupled");
    write_corpus(scratch.path / "corpus");
    const std::string aligned =
                          "teacher = \"dense\"\ncontext = 64\nwindow_rule = \"aligned\"\ntier = \"topk\"\ntop_k = 16\n",
                      loss = "loss = \"decoupled_top_k\"\n", live = loss + "teacher = \"dense\"\ntop_k = 16\n";
    spill(scratch.path / "kd.toml",
          label_recipe(label_stage("labels", aligned) + label_stage("codes", aligned + "code = \"q8\"") +
                       student_stage("stored", "labels = \"labels\"\nkd_temperature = 2.0\n" + loss) +
                       student_stage("coded", "labels = \"codes\"\nkd_temperature = 2.0\n" + loss) +
                       student_stage("live", live + "kd_temperature = 2.0") +
                       student_stage("live_of_two", loss + "teacher = \"dense\"\nkd_temperature = 2.0\ntop_k = 2") +
                       student_stage("at_1", "labels = \"labels\"\n" + loss) +
                       student_stage("top_k_at_1", "labels = \"labels\"\nloss = \"top_k\"")));
    const Outcome outcome = run(scratch.path, {"run", "kd.toml", "--out", "runs/kd"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    CHECK(outcome.err.find("has no effect") == std::string::npos);
    const fs::path root = scratch.path / "runs/kd";
    CHECK(first_kd(root / "stored") == doctest::Approx(first_kd(root / "live")).epsilon(2e-3));
    CHECK(first_kd(root / "coded") == doctest::Approx(first_kd(root / "live")).epsilon(2e-2));
    CHECK(first_kd(root / "at_1") == doctest::Approx(first_kd(root / "top_k_at_1")).epsilon(1e-6));
    CHECK(std::abs(first_kd(root / "stored") / first_kd(root / "at_1") - 1) > 0.001);
    CHECK(std::abs(first_kd(root / "live") / first_kd(root / "live_of_two") - 1) > 0.01);

    const auto refused = [&](const std::string& stages, const std::string& word) {
      spill(scratch.path / "refused.toml", label_recipe(stages));
      const Outcome refusal = run(scratch.path, {"run", "refused.toml", "--out", "runs/refused"});
      INFO(refusal.err);
      CHECK(refusal.code == 2);
      CHECK(refusal.err.find(word) != std::string::npos);
    };
    refused(label_stage("labels", aligned + "temperature = 2.0") +
                student_stage("s", "labels = \"labels\"\nkd_temperature = 2.0\n" + loss),
            "softens probabilities itself, and stage 'labels' stores them at temperature 2; give it temperature = 1");
    refused(label_stage("labels", "teacher = \"dense\"") + student_stage("s", "labels = \"labels\"\n" + loss),
            "decoupled_top_k needs probabilities, and stage 'labels' stores tier top1");
    refused(label_stage("labels", "teacher = \"dense\"\ntier = \"sample\"") +
                student_stage("s", "labels = \"labels\"\n" + loss),
            "'decoupled_top_k' needs the teacher's choice or probabilities, and stage 'labels' stores draws");
    refused(student_stage("s", loss), "'decoupled_top_k' needs `labels` or `teacher`");
  }

  TEST_CASE(
      "label tiers: codes train as half precision does, in fewer bytes; where they lie, as JSONL, in plan and "
      "inspect") {
    const Scratch scratch("label_codes");
    write_corpus(scratch.path / "corpus");
    const std::string of_dense = "teacher = \"dense\"\ncontext = 64\n", top_k = "tier = \"topk\"\ntop_k = 16\n",
                      coded = top_k + "code = \"q8\"\n", soft = "loss = \"top_k\"\n";
    spill(scratch.path / "kd.toml",
          label_recipe(label_stage("halves", of_dense + top_k) + label_stage("codes", of_dense + coded) +
                       student_stage("from_halves", "labels = \"halves\"\n" + soft) +
                       student_stage("from_codes", "labels = \"codes\"\n" + soft) +
                       student_stage("first_of_halves", "labels = \"halves\"") +
                       student_stage("first_of_codes", "labels = \"codes\"")));
    const Outcome outcome = run(scratch.path, {"run", "kd.toml", "--out", "runs/kd"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    const fs::path root = scratch.path / "runs/kd";
    CHECK(first_kd(root / "from_codes") == doctest::Approx(first_kd(root / "from_halves")).epsilon(0.01));
    CHECK(weights_of(root / "from_codes") != weights_of(root / "from_halves"));
    CHECK(!weights_of(root / "first_of_codes").empty());  // the teacher's choice is kept
    CHECK(weights_of(root / "first_of_codes") == weights_of(root / "first_of_halves"));

    const coppice::StageCost planned = cost_of(scratch.path / "kd.toml", "codes");
    const auto row_bytes =
        static_cast<double>(coppice::label_row_bytes({.vocab_size = 384, .tier = "topk", .k = 16, .code = "q8"}));
    CHECK(row_bytes == 30);  // 103 bits of ids, 16 bytes of their probabilities and one of the tail
    CHECK(planned.tokens > 0);
    CHECK(planned.disk_bytes == row_bytes * planned.tokens);
    CHECK(cost_of(scratch.path / "kd.toml", "halves").disk_bytes == 66 * planned.tokens);
    CHECK(bytes_of(root / "codes/labels") < 0.6 * static_cast<double>(bytes_of(root / "halves/labels")));
    const Outcome shown = run(scratch.path, {"inspect", "runs/kd/codes/labels/code"});
    CHECK(shown.out.find("\"code\": \"q8\"") != std::string::npos);
    CHECK(shown.out.find("near ties") != std::string::npos);

    // where they lie
    const auto reads = [&](const std::string& options) {
      spill(scratch.path / "cache.toml",
            label_recipe(label_stage("codes", "cache = \"runs/kd/codes/labels\"\n" + options) +
                         student_stage("from_codes", "labels = \"codes\"\n" + soft)));
      return run(scratch.path, {"run", "cache.toml", "--out", "runs/cache"});
    };
    const Outcome unknown = reads(top_k + "code = \"q4\"\n");
    CHECK(unknown.code == 2);
    CHECK(unknown.err.find("code") != std::string::npos);
    const Outcome other = reads(top_k);
    CHECK(other.code == 3);
    CHECK(other.err.find("another code: found q8, expected f16") != std::string::npos);
    CHECK(!fs::exists(scratch.path / "runs/cache/dense"));  // before anything is trained
    const Outcome same = reads(coded);
    INFO(same.err);
    REQUIRE(same.code == 0);
    CHECK(weights_of(scratch.path / "runs/cache/from_codes") == weights_of(root / "from_codes"));

    // out and in
    export_both(scratch.path, "runs/kd/codes/labels/");
    const auto imports = [&](const std::string& cache, const std::vector<std::string>& flags) {
      return import_code(scratch.path, cache, flags);
    };
    CHECK(imports("again", {}).code == 0);
    CHECK(files_of(scratch.path / "again") == files_of(root / "codes/labels/code"));
    CHECK(imports("none", {"--code", "f16"}).err.find("another code: found q8, expected f16") != std::string::npos);
    const Outcome misplaced = imports("none", {"--tier", "top1", "--code", "q8"});
    CHECK(misplaced.code == 2);
    CHECK(misplaced.err.find("'q8' is of tier topk, not of top1") != std::string::npos);
    spill(scratch.path / "given.toml", label_recipe(label_stage("codes", "import = \"given\"\n" + coded) +
                                                    student_stage("from_codes", "labels = \"codes\"\n" + soft)));
    const Outcome imported = run(scratch.path, {"run", "given.toml", "--out", "runs/given"});
    INFO(imported.err);
    REQUIRE(imported.code == 0);
    CHECK(weights_of(scratch.path / "runs/given/from_codes") == weights_of(root / "from_codes"));
  }

  TEST_CASE(
      "label tiers: head and draws serve every loss that their parts do; stored, live, where they lie, as JSONL") {
    const Scratch scratch("hybrid");
    write_corpus(scratch.path / "corpus");
    const std::string tier = "tier = \"hybrid\"\ntop_k = 8\ndraws = 4\n",
                      of_dense = "teacher = \"dense\"\ncontext = 64\n",
                      aligned = of_dense + "window_rule = \"aligned\"\ndraw_seed = 7\n", loss = "loss = \"hybrid\"\n",
                      stored = "labels = \"labels\"\n", live = "teacher = \"dense\"\ntop_k = 8\ndraws = 4\n" + loss,
                      top_k = "tier = \"topk\"\ntop_k = 8\n";
    spill(scratch.path / "kd.toml",
          label_recipe(label_stage("labels", aligned + tier) +
                       label_stage("head", aligned + top_k + "code = \"q8\"\nbatch_tokens = 64") +
                       student_stage("stored", stored + loss) + student_stage("live", live) +
                       student_stage("live_again", live + "seed = 8") +
                       student_stage("as_top_k", stored + "loss = \"top_k\"") +
                       student_stage("of_head", "labels = \"head\"\nloss = \"top_k\"") +
                       student_stage("decoupled", stored + "loss = \"decoupled_top_k\"\nkd_temperature = 2.0") +
                       student_stage("choice", stored)));
    const Outcome outcome = run(scratch.path, {"run", "kd.toml", "--out", "runs/kd"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    CHECK(outcome.err.find("the loss passed its self-test") != std::string::npos);
    const fs::path root = scratch.path / "runs/kd";
    // a batch of windows rounds otherwise than a window alone, and the head is stored to a sixteenth of a nat
    CHECK(first_kd(root / "stored") == doctest::Approx(first_kd(root / "live")).epsilon(0.01));
    CHECK(weights_of(root / "live") != weights_of(root / "live_again"));
    CHECK(weights_of(root / "as_top_k") == weights_of(root / "of_head"));  // read a window at a time, too
    CHECK(first_kd(root / "decoupled") > 0);
    CHECK(!weights_of(root / "choice").empty());

    const Outcome shown = run(scratch.path, {"inspect", "runs/kd/labels/labels/code"});
    CHECK(shown.out.find("ids a label: 8, draws beside them: 4") != std::string::npos);
    CHECK(shown.out.find("\"draws\": 4") != std::string::npos);
    CHECK(shown.out.find("near ties") == std::string::npos);

    export_both(scratch.path, "runs/kd/labels/labels/");
    const auto imports = [&](const std::string& cache, const std::vector<std::string>& flags) {
      return import_code(scratch.path, cache, flags);
    };
    CHECK(imports("again", {}).code == 0);
    CHECK(files_of(scratch.path / "again") == files_of(root / "labels/labels/code"));
    const auto refused_import = [&](const std::vector<std::string>& flags, int code, const std::string& word) {
      const Outcome refusal = imports("none", flags);
      INFO(refusal.err);
      CHECK(refusal.code == code);
      CHECK(refusal.err.find(word) != std::string::npos);
    };
    refused_import({"--draws", "257"}, 2, "got 257, expected 1 to 256 in tier hybrid");
    refused_import({"--draws", "8"}, 3, "another draws: found 4, expected 8");
    refused_import({"--top-k", "4"}, 3, "another k: found 8, expected 4");
    refused_import({"--format", "vllm"}, 2, "tier hybrid needs draws");
    refused_import({"--code", "q8"}, 2, "'q8' is of tier topk, not of hybrid");
    for (const char* source : {"import = \"given\"\n", "cache = \"runs/kd/labels/labels\"\n"}) {
      CAPTURE(source);
      spill(scratch.path / "given.toml",
            label_recipe(label_stage("labels", source + tier) + student_stage("stored", stored + loss)));
      const std::string out = std::string("runs/") + source[0];
      const Outcome given = run(scratch.path, {"run", "given.toml", "--out", out});
      INFO(given.err);
      REQUIRE(given.code == 0);
      CHECK(weights_of(scratch.path / out / "stored") == weights_of(root / "stored"));
    }

    const auto refused = [&](const std::string& stages, const std::string& word) {
      spill(scratch.path / "refused.toml", label_recipe(stages));
      const Outcome refusal = run(scratch.path, {"run", "refused.toml", "--out", "runs/refused"});
      INFO(refusal.err);
      CHECK(refusal.code == 2);
      CHECK(refusal.err.find(word) != std::string::npos);
    };
    refused(label_stage("labels", of_dense + tier) + student_stage("s", stored + "loss = \"sample\""),
            "sample needs draws, and stage 'labels' stores tier hybrid; give it tier = \"sample\"");
    refused(label_stage("labels", of_dense + top_k) + student_stage("s", stored + loss),
            "hybrid needs draws beside its ids, and stage 'labels' stores tier topk; give it tier = \"hybrid\"");
    refused(label_stage("labels", of_dense + tier + "temperature = 2.0") + student_stage("s", stored + loss),
            "stores probabilities at 2");
    refused(label_stage("labels", of_dense + tier) + student_stage("s", stored + "loss = \"kl\""),
            "whole distribution");
    refused(label_stage("given", "import = \"corpus\"\nimport_format = \"vllm\"\n" + tier), "tier hybrid needs draws");
    refused(label_stage("labels", of_dense + "tier = \"hybrid\"\ndraws = 300"), "draws: got 300, expected 1 to 256");
  }
}

TEST_SUITE("faults") {
  TEST_CASE("label tiers: head and draws are the same bytes again from another batch, after a kill, and shared out") {
    const Scratch scratch("hybrid_bytes");
    const auto wanted =
        check_same_bytes(scratch, "teacher = \"dense\"\ncontext = 64\ntier = \"hybrid\"\ntop_k = 4\ndraws = 4");

    const coppice::StageCost planned = cost_of(scratch.path / "one.toml", "labels");
    CHECK(planned.disk_bytes == 14 * planned.tokens);  // 33 bits of ids, 33 of draws, 4 probabilities and a tail
    const auto tokens =
        nlohmann::json::parse(slurp(scratch.path / "runs/straight/labels/manifest.json")).at("tokens").get<double>();
    const auto bytes = static_cast<double>(bytes_of(scratch.path / "runs/straight/labels/labels"));
    CHECK(bytes >= 14 * tokens);
    CHECK(bytes <= 14 * tokens + 10'000 * static_cast<double>(wanted.size()));
  }
}
