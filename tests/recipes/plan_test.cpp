// What plan predicts, by hand; what is left of it in a run folder; what the real program prints and refuses.
#include "recipes/run/cost.h"

#include <doctest/doctest.h>

#include "src/data/label_cache.h"
#include "src/model/parameters.h"
#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;

namespace {

// 384 x 32 embedding; per layer 2 norms, q and o 32 x 32, k and v 16 x 32, two head norms of 16, three FFN matrices of
// 32 x F; last norm
constexpr double parameters(double ffn) { return 384 * 32 + 2 * (64 + 2 * 1024 + 2 * 512 + 32 + 3 * 32 * ffn) + 32; }

/// Of labels whose two readers draw 4096 tokens each in 8 steps and windows of 64, with data_seed 3 and `other_seed`;
/// `options` are more of both.
StageCost label_cost(const std::string& coverage, int other_seed, const CorpusBytes& corpus,
                     const std::string& options = "", const std::string& other_options = "") {
  const Scratch scratch("cost_labels");
  const auto reader = [](const std::string& name, const std::string& from, int data_seed, const std::string& more) {
    return "\n[[stage]]\nname = \"" + name + "\"\nfrom = \"" + from +
           "\"\nkind = \"train\"\nlabels = \"labels\"\ntokens = 4096\nseq_len = 64\nbatch_tokens = 512\ndata_seed = " +
           std::to_string(data_seed) + "\n" + more + "\n";
  };
  spill(scratch.path / "r.toml", slurp(fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/small.toml") +
                                     "\n[[stage]]\nname = \"labels\"\nkind = \"label\"\nteacher = "
                                     "\"dense\"\nwindow_rule = \"aligned\"\ncontext = 64\ncoverage = \"" +
                                     coverage + "\"\n" + reader("core", "pruned", 3, options) +
                                     reader("other", "dense", other_seed, other_options));
  const RecipeCost cost = estimate_cost(load_recipe((scratch.path / "r.toml").string(), {}, {}), corpus, 0);
  return *std::ranges::find(cost.stages, "labels", &StageCost::name);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("cost: steps, tokens, disk and memory of the small recipe by hand") {
    const Recipe recipe = load_recipe((fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/small.toml").string(),
                                      {{"dense.keep_last", "4", ""}}, {});
    const RecipeCost cost = estimate_cost(recipe, 250'000, 0);
    REQUIRE(cost.stages.size() == 5);
    const StageCost &data = cost.stages[0], &dense = cost.stages[1], &pruned = cost.stages[2],
                    &release = cost.stages[4];
    CHECK(data.tokens == 100'000);  // 2.5 bytes each
    CHECK(data.disk_bytes == doctest::Approx(220'000));
    CHECK(dense.steps == 16);
    CHECK(dense.tokens == 8192);
    CHECK(dense.parameters == parameters(64));
    CHECK(dense.transient_bytes ==
          4 * parameters(64) * 3 * 5);  // weights and two slots; four kept and the one being written
    CHECK(dense.disk_bytes == 4 * parameters(64) * (1 + 3 * 5));
    CHECK(pruned.parameters == parameters(24));
    CHECK(pruned.disk_bytes == 4 * parameters(24));
    CHECK(release.disk_bytes == 4 * parameters(24));
    CHECK(cost.disk_bytes == doctest::Approx(220'000 + 4 * (parameters(64) * 16 + 2 * parameters(24))));
    CHECK(cost.memory_bytes ==
          doctest::Approx(std::ranges::max_element(cost.stages, {}, &StageCost::memory_bytes)->memory_bytes));

    const Scratch scratch("cost");
    spill(scratch.path / "data/x", std::string(20'000, 'x'));
    spill(scratch.path / "dense/ckpt/step-00000004/part", std::string(100'000, 'x'));
    spill(scratch.path / "dense/ckpt/.left-step-00000008/part",
          std::string(50'000, 'x'));  // set aside: not what the stage still needs
    const RecipeCost begun = remaining_cost(cost, scratch.path, {});
    CHECK(begun.disk_bytes == doctest::Approx(cost.disk_bytes - 120'000));
    const RecipeCost late = remaining_cost(cost, scratch.path, {"dense", "pruned"});
    REQUIRE(late.stages.size() == 3);
    CHECK(late.disk_bytes == doctest::Approx(200'000 + 4 * parameters(24)));
  }

  TEST_CASE("cost: readers that draw the same windows share their labels, others do not") {
    CHECK(label_cost("used", 3, 250'000).tokens == 4096);
    CHECK(label_cost("used", 4, 250'000).tokens == 8192);
  }

  TEST_CASE("cost: labels are those of the steps that distil, once where readers draw the same") {
    const std::string late = "distil_from = 0.75", early = "distil_to = 0.5";  // two and four of eight steps
    const StageCost half = label_cost("used", 4, 0, early, early);
    CHECK(half.tokens == 4096);
    CHECK(half.disk_bytes == 4096 * 2 + 64 * kLabelRunBytes);
    CHECK(half.flops == label_cost("used", 4, 0).flops / 2);
    CHECK(label_cost("used", 3, 0, late, early).tokens == 3072);
    CHECK(label_cost("used", 3, 0, late, late).tokens == 1024);
    CHECK(label_cost("used", 3, 0, late, "").tokens == 4096);
    CHECK(label_cost("all", 3, 250'000, late, late).tokens == 100'000);
  }

  TEST_CASE("cost: labels of a corpus that is not there are counted by the tokens that are drawn") {
    const StageCost used = label_cost("used", 4, 0), all = label_cost("all", 4, 0);
    CHECK(used.tokens == 8192);
    CHECK(used.disk_bytes == 8192 * 2 + 128 * kLabelRunBytes);
    CHECK(used.flops == label_cost("used", 4, 250'000).flops);
    CHECK(used.uncounted_flops == label_cost("used", 4, 250'000).uncounted_flops);
    CHECK(all.tokens == 8192);
    CHECK(all.disk_bytes == 8192 * 2);
    CHECK(label_cost("all", 4, 250'000).tokens == 100'000);

    // one domain there and another not: what is there, or what is drawn, whichever is more
    CorpusBytes part(10'000, /*is_whole=*/false);
    CHECK(label_cost("all", 4, part).tokens == 8192);
    CHECK(label_cost("used", 4, part).tokens == 8192);
    CHECK(label_cost("used", 4, part).flops == used.flops);
    part.bytes = 250'000;
    CHECK(label_cost("all", 4, part).tokens == 100'000);
    const StageCost there = label_cost("all", 4, part), whole = label_cost("all", 4, 250'000);
    CHECK(there.disk_bytes == 100'000 * 2);
    CHECK(there.flops == whole.flops);
    CHECK(there.uncounted_flops == whole.uncounted_flops);
    CHECK(there.work.front().read_tokens == whole.work.front().read_tokens);
  }

  TEST_CASE("cost: a corpus is whole when every domain has text") {
    const Scratch scratch("cost_corpus");
    write_run(scratch.path, "small.toml");
    std::string text = slurp(scratch.path / "small.toml");
    for (size_t at = 0; (at = text.find("\"corpus/", at)) != std::string::npos; ++at)
      text.insert(at + 1, scratch.path.string() + "/");
    spill(scratch.path / "small.toml", text);
    const auto found = [&] { return corpus_bytes(load_recipe((scratch.path / "small.toml").string(), {}, {})); };
    const CorpusBytes whole = found();
    CHECK(whole.is_whole);
    fs::remove(scratch.path / "corpus/code.jsonl");
    const CorpusBytes part = found();
    CHECK_FALSE(part.is_whole);
    CHECK(part.bytes > 0);
    CHECK(part.bytes < whole.bytes);
  }

  TEST_CASE("cost: an evaluation's probes take time, and are none of its tokens") {
    const Recipe recipe = load_recipe((fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/small.toml").string(), {}, {});
    const StageCost scores = estimate_cost(recipe, 250'000, 0).stages[3];
    REQUIRE(scores.name == "scores");
    CHECK(scores.tokens == 2 * 4096);
    double flops = 0;
    for (const char* name : {"dense", "pruned"})  // windows of 64 repeat runs of 8, 16 and 32
      flops += 4096.0 * 384 * (20 + 6 * 16) +
               (64 * 15 + 32 * 31 + 16 * 63) * forward_flops_per_token(recipe.model_after(name), 64);
    CHECK(scores.uncounted_flops == doctest::Approx(flops).epsilon(1e-12));
  }

  TEST_CASE("cost: evaluations and looks cost what the split holds that they read") {
    const auto cost = [](const std::vector<Override>& more) {
      std::vector<Override> overrides = {{"data.tuning_share", "0.02", ""}, {"scores.tokens", "0", ""}};
      overrides.insert(overrides.end(), more.begin(), more.end());
      const Recipe recipe =
          load_recipe((fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/small.toml").string(), overrides, {});
      return estimate_cost(recipe, 250'000, 0).stages;
    };
    const Override look = {"dense.eval_split", "\"tuning\"", ""};
    CHECK(cost({})[3].tokens == doctest::Approx(2 * 8000));  // 100,000 tokens
    CHECK(cost({{"scores.split", "\"tuning\"", ""}})[3].tokens == doctest::Approx(2 * 2000));
    CHECK(cost({})[1].uncounted_flops == doctest::Approx(4 * cost({look})[1].uncounted_flops));
    const CorpusTokens text = {.train = {{"a", 9.2e6}, {"b", 4e5}}, .heldout = 416e3};
    CHECK(split_line(text) == "text: about 9.60M tokens to train on, 416k held out\n");
    CHECK(split_line({.train = text.train, .heldout = 416e3, .tuning = 4e5})
              .ends_with("416k held out, 400k for tuning\n"));
    CHECK(split_line({}).empty());
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("plan: tokens and epochs a domain; a missing corpus is said so; the full-size recipe only counts") {
    const Scratch scratch("plan_domains");
    write_run(scratch.path, "small.toml");
    spill(scratch.path / "corpus/prose.jsonl", std::string(5120, 'x'));  // 2048 tokens, as far as plan knows
    const Outcome plan = run(scratch.path, {"plan", "small.toml"});
    CHECK(plan.code == 0);
    const size_t table = plan.out.find("epochs");
    REQUIRE(table != std::string::npos);
    const std::string line = plan.out.substr(plan.out.find("dense", table), 60);
    INFO(plan.out);
    CHECK(line.find("prose") != std::string::npos);
    CHECK(line.find("8.2k") != std::string::npos);
    CHECK(line.find("4.00") != std::string::npos);
    CHECK(plan.err.empty());

    fs::create_directory(scratch.path / "packed");  // a quarter of its text, in a folder as alone
    spill(scratch.path / "packed/prose.jsonl.zst", std::string(1280, 'x'));
    std::string in_folder = slurp(scratch.path / "small.toml");
    in_folder.replace(in_folder.find("corpus/prose.jsonl"), std::string_view("corpus/prose.jsonl").size(), "packed");
    spill(scratch.path / "packed.toml", in_folder);
    CHECK(run(scratch.path, {"plan", "packed.toml"}).out.find(line) != std::string::npos);

    fs::remove(scratch.path / "corpus/prose.jsonl");
    const Outcome missing = run(scratch.path, {"plan", "small.toml"});
    CHECK(missing.code == 0);
    CHECK(missing.err.find("corpus/prose.jsonl: no such corpus file or folder") != std::string::npos);

    const auto limited = [] {
#ifndef __SANITIZE_ADDRESS__  // which maps more than any limit before it begins
      const rlimit limit{.rlim_cur = rlim_t{64} << 30, .rlim_max = rlim_t{64} << 30};
      setrlimit(RLIMIT_AS, &limit);
#endif
    };
    const Outcome large = run(scratch.path, {"plan", std::string(COPPICE_SOURCE_DIR) + "/recipes/afm.toml"}, limited);
    INFO(large.out << large.err);
    CHECK(large.code == 7);  // counted and refused, whatever this machine has
    for (const char* word : {"6.60B", "2.74B", "6.30T", "1.00T", "100B", "188B"})
      CHECK(large.out.find(word) != std::string::npos);
    const size_t labels = large.out.find("\nlabels");
    REQUIRE(labels != std::string::npos);  // 2 bytes for each token drawn, and a run for each window
    CHECK(large.out.substr(labels, large.out.find('\n', labels + 1) - labels).find("11.5 TiB") != std::string::npos);
    CHECK(large.err.find("GiB of memory") != std::string::npos);
  }

  TEST_CASE("data tokenize asks for the room that tokenizing takes, run for that of all stages") {
    const Scratch scratch("tokenize_large");
    write_run(scratch.path, "small.toml");
    const std::vector<std::string> large = {"small.toml", "--set", "dense.tokens=1e12", "--set",
                                            "dense.batch_tokens=6400000000"};
    const auto with = [&](std::vector<std::string> verb) {
      verb.insert(verb.end(), large.begin(), large.end());
      return run(scratch.path, verb);
    };
    const Outcome refused = with({"run"});
    INFO(refused.err);
    CHECK(refused.code == 7);
    CHECK(refused.err.find("stage 'dense' needs about") != std::string::npos);
    const Outcome tokenized = with({"data", "tokenize"});
    INFO(tokenized.err);
    CHECK(tokenized.code == 0);
    CHECK(fs::exists(scratch.path / "runs/small/data/tokens/prose/manifest.json"));
  }

  TEST_CASE("--version names the program, its commit and its libraries") {
    const Scratch scratch("version");
    const Outcome outcome = run(scratch.path, {"--version"});
    CHECK(outcome.code == 0);
    for (const char* word : {"coppice 0.", "torch", "hdf5", "sentencepiece", "zstd", "compiler", "cpu", "cuda"}) {
      INFO(word << "\n" << outcome.out);
      CHECK(outcome.out.find(word) != std::string::npos);
    }
  }

  TEST_CASE("--json is one object a line, --quiet nothing, --fresh no second run") {
    const Scratch scratch("output");
    write_run(scratch.path, "small.toml");
    const Outcome json = run(scratch.path, {"run", "small.toml", "--json"});
    CHECK(json.code == 0);
    std::istringstream lines(json.err);
    size_t count = 0;
    for (std::string line; std::getline(lines, line); ++count) CHECK(nlohmann::json::parse(line).contains("event"));
    CHECK(count > 4);
    const Outcome fresh = run(scratch.path, {"run", "small.toml", "--fresh", "--json"});
    CHECK(fresh.code == 2);
    CHECK(nlohmann::json::parse(fresh.err)["level"] == "error");
    fs::remove_all(scratch.path / "runs");
    const Outcome quiet =
        run(scratch.path, {"run", "small.toml", "--fresh", "--quiet", "--set", "model.student.intermediate_size=32"});
    CHECK(quiet.code == 0);
    CHECK(quiet.err.empty());
    CHECK(quiet.out.find("report.html") != std::string::npos);
  }
}
