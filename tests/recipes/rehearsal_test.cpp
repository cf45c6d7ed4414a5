// A run in bfloat16 on the CPU, of every stage kind, on the real program: it ends near the one in float32; killed and
// resumed, with masters kept in other ways, it leaves the bits of an undisturbed one, and so it does whichever thread
// of a kernel runs first.
#include <doctest/doctest.h>

#include <cmath>

#include "src/tensors/cuda_devices.h"
#include "tests/recipes/given_model.h"
#include "tests/recipes/same_results.h"

using namespace coppice::test;

namespace {

/// rehearsal.toml with what it reads: a model of 64 dimensions and 128 channels from elsewhere.
struct Rehearsal : Scratch {
  fs::path root = path / "runs/rehearsal";

  explicit Rehearsal(const std::string& name) : Scratch(name) {
    write_run(path, "rehearsal.toml");
    const coppice::Tokenizer tokenizer = train_tokenizer_on_prose(path / "own.model", path / "corpus");
    const coppice::ModelConfig config{.vocab_size = 384,
                                      .hidden_size = 64,
                                      .num_hidden_layers = 2,
                                      .num_attention_heads = 2,
                                      .num_key_value_heads = 1,
                                      .head_dim = 32,
                                      .intermediate_size = {128, 128}};
    const coppice::Model model = coppice::make_model(config);
    coppice::initialise_parameters(config, *model.arena, 3);
    coppice::export_hf(path / "elsewhere", model, tokenizer, "f32");
  }

  Outcome run(const char* failpoints = "", const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"run", "rehearsal.toml"};
    words.insert(words.end(), more.begin(), more.end());
    return coppice::test::run(path, words, [=] { setenv("COPPICE_FAILPOINTS", failpoints, 1); });
  }

  nlohmann::json json(const char* file) const { return nlohmann::json::parse(slurp(root / file)); }
};

/// Without the manifests of checkpoints, which hold the text of their recipe.
std::map<std::string, std::string> results_of_any_recipe(const fs::path& root) {
  std::map<std::string, std::string> results = results_of(root);
  std::erase_if(results, [](const auto& result) {
    return result.first.find("/ckpt/") != std::string::npos && result.first.ends_with("manifest.json");
  });
  return results;
}

/// A run that is killed twice and gone on with, its masters split and whole in turns: in the last step of 'masks',
/// behind a compaction, and six steps later.
struct Killed {
  Outcome second, last;
};
Killed run_killed(const Rehearsal& run, const std::vector<std::string>& where) {
  std::vector<std::string> split = where;
  for (const char* stage : {"dense", "masks", "core", "live"})
    split.insert(split.end(), {"--set", std::string(stage) + ".master=\"split\""});
  REQUIRE(run.run("train.after_step=abort@8", split).signal == SIGKILL);
  Killed killed{.second = run.run("train.after_step=abort@6", where), .last = {}};
  REQUIRE(killed.second.signal == SIGKILL);
  killed.last = run.run("", split);
  return killed;
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE(
      "rehearsal: every stage kind in bfloat16 on the CPU, near the run in float32; killed and resumed with its "
      "masters "
      "split or whole, and with the kernels' threads in another order, equal bits") {
    const Rehearsal straight("rehearsal"), exact("rehearsal_fp32");
    const Outcome outcome = straight.run();
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    REQUIRE(exact.run("", {"--set", "compute=\"fp32\""}).code == 0);
    CHECK(straight.json("run.json")["machine"]["compute"] == "bf16");
    CHECK(straight.json("dense/ckpt/step-00000004/manifest.json")["machine"]["compute"] == "bf16");
    CHECK(outcome.err.find("dead channels left the model") != std::string::npos);
    const nlohmann::json cut = straight.json("pruned/manifest.json")["results"];
    CHECK(cut["masked_pruned_difference"].get<double>() <= 1e-5);  // a cut is made and judged in float32
    CHECK(cut["refit"]["layers"].size() == 2);
    for (const char* stage : {"dense/manifest.json", "live/manifest.json"}) {
      CAPTURE(stage);
      const auto loss = [&](const Rehearsal& of) { return of.json(stage)["results"]["heldout_loss"].get<double>(); };
      CHECK(loss(straight) != loss(exact));
      CHECK(std::fabs(loss(straight) / loss(exact) - 1) < 0.02);
    }

    const Rehearsal killed("rehearsal_killed");
    const Outcome resumed = run_killed(killed, {}).last;
    INFO(resumed.err);
    REQUIRE(resumed.code == 0);
    CHECK(resumed.err.find("stage 'live': on cpu in bf16") != std::string::npos);
    CHECK(resumed.err.find("master split") != std::string::npos);
    CHECK(resumed.err.find("the checkpoint was written with") == std::string::npos);
    CHECK(resumed.err.find("stage 'live': resuming at step 2 of 3") != std::string::npos);
    check_same(results_of_any_recipe(killed.root), results_of_any_recipe(straight.root));

    const Rehearsal shuffled("rehearsal_shuffled");
    REQUIRE(shuffled.run("executor.shuffle=nan").code == 0);
    check_same_runs(shuffled.root, straight.root);

    // a checkpoint is of the master alone: another element type goes on from it, and says so
    fs::remove_all(shuffled.root / "live");
    REQUIRE(shuffled.run("train.after_step=abort@2").signal == SIGKILL);
    const Outcome other = shuffled.run("", {"--set", "compute=\"fp32\""});
    INFO(other.err);
    CHECK(other.code == 0);
    CHECK(other.err.find("stage 'live': resuming at step 2 of 3") != std::string::npos);
    CHECK(other.err.find("compute \"bf16\", now it is \"fp32\"") != std::string::npos);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("rehearsal: on a device, killed and resumed with its masters split or whole, equal bits") {
    if (const std::string why = coppice::why_not_here(at::Device(at::kCUDA, 0)); !why.empty()) {
      MESSAGE("skipped: " << why);
      CHECK(coppice::num_cuda_devices() == 0);
      return;
    }
    const std::vector<std::string> on_device = {"--set", "device=\"cuda\""};
    const Rehearsal straight("rehearsal_device"), killed("rehearsal_device_killed");
    REQUIRE(straight.run("", on_device).code == 0);
    CHECK(straight.json("run.json")["machine"]["device"] == "cuda:0");
    const Killed outcomes = run_killed(killed, on_device);
    INFO(outcomes.last.err);
    REQUIRE(outcomes.last.code == 0);
    CHECK(outcomes.second.err.find("stage 'masks': resuming at step") !=
          std::string::npos);  // which one, the writer says
    check_same(results_of_any_recipe(killed.root), results_of_any_recipe(straight.root));
  }
}
