// refit in the real program: what it brings back and leaves alone, its price, masks, models from elsewhere, identities.
#include <ATen/ATen.h>
#undef CHECK  // c10's, which aborts
#include <doctest/doctest.h>

#include <algorithm>

#include "recipes/language/recipe.h"
#include "recipes/run/cost.h"
#include "recipes/stages/stages.h"
#include "src/checkpoint/checkpoint.h"
#include "src/model/parameters.h"
#include "tests/recipes/given_model.h"

using namespace coppice;
using namespace coppice::test;

namespace {

const char* const kStages = R"(
[model.uneven]
intermediate_size = [48, 24]
[[stage]]
name = "dense"
kind = "train"
model = "source"
tokens = 32768
seq_len = 64
batch_tokens = 512
[[stage]]
name = "cut"
kind = "prune"
from = "dense"
scores = "magnitude"
[[stage]]
name = "refitted"
kind = "prune"
from = "dense"
scores = "magnitude"
refit = true
calibration_tokens = 8192
[[stage]]
name = "uneven"
kind = "prune"
from = "dense"
target = "uneven"
scores = "flap"
refit = true
calibration_tokens = 8192
[[stage]]
name = "masks"
kind = "learn_masks"
from = "dense"
tokens = 4096
seq_len = 64
batch_tokens = 512
mask_form = "plain"
on_collapse = "warn"
[[stage]]
name = "under_masks"
kind = "prune"
from = "masks"
refit = true
calibration_tokens = 8192
[[stage]]
name = "frozen"
kind = "learn_masks"
from = "dense"
tokens = 4096
seq_len = 64
batch_tokens = 512
freeze_weights = true
on_collapse = "warn"
[[stage]]
name = "to_dense"
kind = "prune"
from = "frozen"
refit = true
calibration_tokens = 8192
)";

std::string recipe_text() {
  const std::string tiny = slurp(fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/tiny.toml");
  return tiny.substr(0, tiny.find("[[stage]]")) + kStages;
}

Json identity_of(const Recipe& recipe, const std::string& name) {
  return kind_of(recipe.stage(name)).identity(recipe, recipe.stage(name));
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("refit: identities of stages without it are what they were; with it, text and damping decide") {
    const Scratch scratch("refit_identity");
    const auto load = [&](const std::vector<Override>& overrides) {
      spill(scratch.path / "tiny.toml", recipe_text());
      return load_recipe((scratch.path / "tiny.toml").string(), overrides, {});
    };
    const Recipe recipe = load({});
    CHECK(identity_of(recipe, "cut") == Json({{"scores", "magnitude"}, {"intermediate_size", {32, 32}}}));
    CHECK(identity_of(load({{"cut.refit_damping", "0.5", ""}, {"cut.calibration_tokens", "64", ""}}), "cut") ==
          identity_of(recipe, "cut"));
    CHECK(identity_of(recipe, "refitted") == Json({{"scores", "magnitude"},
                                                   {"intermediate_size", {32, 32}},
                                                   {"refit", true},
                                                   {"refit_damping", 0.01},
                                                   {"calibration_tokens", 8192},
                                                   {"calibration", {{"prose", 0.4}, {"code", 0.6}}}}));
    CHECK(identity_of(recipe, "under_masks").contains("calibration"));
    CHECK_FALSE(identity_of(load({{"under_masks.refit", "false", ""}}), "under_masks").contains("calibration"));
  }

  TEST_CASE("refit: plan counts its FLOPs and what it holds, by hand") {
    const Scratch scratch("refit_plan");
    spill(scratch.path / "tiny.toml", recipe_text());
    const Recipe recipe = load_recipe((scratch.path / "tiny.toml").string(), {}, {});
    const RecipeCost cost = estimate_cost(recipe, 1e6, 0);
    const auto stage = [&](const std::string& name) { return *std::ranges::find(cost.stages, name, &StageCost::name); };
    // D 32, F 96 and M 32 in two layers; q and o 32 x 32, k and v 16 x 32; attention over windows of 256
    const double attention = 2 * (2 * 1024 + 2 * 512) + 2 * 32 * 257, uncut = 6 * 32 * 96, cut = 6 * 32 * 32,
                 moments = 2 * 32 * 32 + 2 * 32 * 32, solve = 32.0 * 32 * 32 / 3 + 2.0 * 32 * 32 * 32;
    CHECK(stage("refitted").flops ==
          doctest::Approx(8192 * 2 * (attention + uncut + 2 * cut + moments) + 2 * solve).epsilon(1e-12));
    CHECK(stage("cut").flops == 0);
    CHECK(stage("uneven").flops >
          stage("refitted").flops + 8192 * forward_flops_per_token(recipe.model_after("dense"), 256));
    const double text = 24 * 8192, streams = 4 * 32 * 8192, held = 8 * (4 * 32 * 32 + 6 * 32 * 32),
                 batch = 2048 * (4 * (3 * 96 + 4 * 32 + 8 * 32) + 8 * (32 + 3 * 32));
    CHECK(stage("refitted").memory_bytes - stage("cut").memory_bytes ==
          doctest::Approx(text + streams + held + batch).epsilon(1e-12));
    CHECK(stage("refitted").memory_remedy == "refitted.calibration_tokens or the model's size");
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("refit: brings back a part of what the cut cost, and moves down_proj alone") {
    const Scratch scratch("refit");
    write_tiny_run(scratch.path);
    spill(scratch.path / "tiny.toml", recipe_text());
    const Outcome done = run(scratch.path, {"run", "tiny.toml"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    const fs::path root = scratch.path / "runs/tiny";
    const auto manifest = [&](const std::string& stage) {
      return nlohmann::json::parse(slurp(root / stage / "manifest.json"));
    };
    const auto plain = manifest("cut")["results"];
    CHECK_FALSE(plain.contains("refit"));
    CHECK_FALSE(plain.contains("refitted_loss"));
    for (const auto& [name, target] : {std::pair{"refitted", "dense layers"},
                                       {"uneven", "dense layers"},
                                       {"under_masks", "soft masks"},
                                       {"to_dense", "dense layers"}}) {
      CAPTURE(std::string(name));
      const auto results = manifest(name)["results"];
      CHECK(results["refit"]["target"] == target);
      CHECK(results["refit"]["damping"] == 0.01);
      REQUIRE(results["refit"]["layers"].size() == 2);
      for (const auto& layer : results["refit"]["layers"]) {
        CHECK(layer["after"].get<double>() > 0);
        CHECK(layer["after"].get<double>() < layer["before"].get<double>());
        CHECK(layer["before"].get<double>() < 1.5);
      }
      CHECK(results["masked_pruned_difference"].get<double>() <= 1e-5);  // of the cut, before the refit
      CHECK(results["refitted_loss"].get<double>() < results["pruned_loss"].get<double>());
      CHECK(done.err.find("stage '" + std::string(name) + "', layer 1: down_proj of the cut misses") !=
            std::string::npos);
    }
    const auto results = manifest("refitted")["results"];
    CHECK(results["pruned_loss"] == plain["pruned_loss"]);
    const double uncut = results["uncut_loss"], cut = results["pruned_loss"], refitted = results["refitted_loss"];
    CHECK(refitted < cut - 0.3 * (cut - uncut));  // what a refit is asked to bring back

    const Model before = load_model(root / "cut/model").model, after = load_model(root / "refitted/model").model;
    CHECK(slurp(root / "cut/prune_plan.json") == slurp(root / "refitted/prune_plan.json"));
    for (const Parameter& row : parameter_table(before.config))
      CHECK_MESSAGE(at::equal(before.arena->parameter(row.name), after.arena->parameter(row.name)) ==
                        !row.name.ends_with("down_proj.weight"),
                    row.name);

    // the report has the layers and the losses
    const auto report = nlohmann::json::parse(slurp(root / "report.json"));
    REQUIRE(report["refits"].size() == 4);
    CHECK(report["refits"][0]["stage"] == "refitted");
    CHECK(report["refits"][0]["closed"].get<double>() == doctest::Approx((cut - refitted) / (cut - uncut)));
    CHECK(report["refits"][0]["after"][1] == results["refit"]["layers"][1]["after"]);
    CHECK(slurp(root / "report.md").find("Refit") != std::string::npos);
    // the loss of what each one aims at: of the uncut model, and of soft masks that were learned with the weights
    CHECK(report["refits"][0]["uncut_loss"] == uncut);
    CHECK(report["refits"][2]["uncut_loss"] == manifest("under_masks")["results"]["soft_mask_loss"]);
    const auto& to_dense = report["refits"][3];
    CHECK(to_dense["stage"] == "to_dense");
    CHECK(to_dense["uncut_loss"] == uncut);
    CHECK(to_dense["uncut_loss"].get<double>() < to_dense["cut_loss"].get<double>());
    CHECK(to_dense["closed"].get<double>() > 0);
    CHECK(to_dense["closed"].get<double>() < 1);

    // of a manifest from before matrices had names
    nlohmann::json old = manifest("refitted");
    for (auto& each : old["results"]["refit"]["layers"]) each.erase("weight");
    old.erase("sha256");
    const std::string now = slurp(root / "refitted/manifest.json");
    spill(root / "refitted/manifest.json", seal(old));
    REQUIRE(run(scratch.path, {"report", "runs/tiny"}).code == 0);
    CHECK(nlohmann::json::parse(slurp(root / "report.json"))["refits"][0] == report["refits"][0]);
    spill(root / "refitted/manifest.json", now);

    // the whole stage again gives the same bytes; what the plan counted is what was counted
    const std::string once = slurp(root / "refitted/model/part-00000.h5");
    fs::remove_all(root / "refitted");
    REQUIRE(run(scratch.path, {"run", "tiny.toml"}).code == 0);
    CHECK(slurp(root / "refitted/model/part-00000.h5") == once);
    const Recipe recipe = load_recipe((scratch.path / "tiny.toml").string(), {}, {});
    for (const StageCost& stage : estimate_cost(recipe, 1e6, 0).stages)
      if (stage.kind == "prune")
        CHECK(manifest(stage.name)["flops"].get<double>() == doctest::Approx(stage.flops).epsilon(1e-12));
  }

  TEST_CASE("refit: stopped between two layers it ends with 75 and leaves no stage; again it gives the same bytes") {
    const Scratch scratch("refit_stopped");
    write_tiny_run(scratch.path);
    const std::string text = recipe_text();
    spill(scratch.path / "tiny.toml", text.substr(0, text.find("[[stage]]\nname = \"uneven\"")));
    const std::vector<std::string> command = {"run", "tiny.toml", "--set", "dense.tokens=4096"};
    const fs::path root = scratch.path / "runs/tiny";
    Process process =
        start(scratch.path, command, [] { setenv("COPPICE_FAILPOINTS", "refit.after_half=sleep:1@2", 1); });
    const auto said = [&](const std::string& words) {
      return slurp(root / "log.txt").find(words) != std::string::npos;
    };
    while (!process.poll() && !said("stage 'refitted', layer 0: down_proj of the cut misses"))
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    process.send(SIGTERM);
    const Outcome stopped = process.wait();
    INFO(stopped.err);
    CHECK(stopped.code == 75);
    CHECK(stopped.err.find("stopped while refitting 'refitted', behind matrix 2 of 4; run again") != std::string::npos);
    CHECK_FALSE(said("stage 'refitted', layer 1: down_proj of the cut misses"));
    CHECK_FALSE(fs::exists(root / "refitted/manifest.json"));
    REQUIRE(run(scratch.path, command).code == 0);
    const std::string once = slurp(root / "refitted/model/part-00000.h5");
    fs::remove_all(root / "refitted");
    REQUIRE(run(scratch.path, command).code == 0);
    CHECK(slurp(root / "refitted/model/part-00000.h5") == once);
  }

  TEST_CASE("prune: stopped while a score reads its text it ends with 75 and leaves no stage") {
    const Scratch scratch("prune_stopped");
    write_tiny_run(scratch.path);
    const std::string text = recipe_text();
    spill(scratch.path / "tiny.toml", text.substr(0, text.find("[[stage]]\nname = \"masks\"")));
    const std::vector<std::string> command = {"run", "tiny.toml", "--set", "dense.tokens=4096"};
    const fs::path root = scratch.path / "runs/tiny";
    Process process = start(scratch.path, command, [] {  // of 4; a line is there after a second
      setenv("COPPICE_FAILPOINTS", "scores.after_batch=sleep:1@1,scores.after_batch=sleep:1@2", 1);
    });
    while (!process.poll() && slurp(root / "log.txt").find("[uneven] batch ") == std::string::npos)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    process.send(SIGTERM);
    const Outcome stopped = process.wait();
    INFO(stopped.err);
    CHECK(stopped.code == 75);
    CHECK(stopped.err.find("stopped while scoring 'uneven', batch ") != std::string::npos);
    CHECK_FALSE(fs::exists(root / "uneven/manifest.json"));
    const Outcome again = run(scratch.path, command);
    CHECK(again.code == 0);
    CHECK(again.err.find("[uneven] scored by flap on 8192 tokens") != std::string::npos);
  }

  TEST_CASE("refit: a model from elsewhere, and a cut of a refitted cut") {
    const GivenModel given("refit_given");
    spill(given.scratch.path / "chain.toml",
          given.recipe(
              "[[stage]]\nname = \"given\"\nkind = \"import\"\npath = \"" + (given.scratch.path / "hf").string() +
              "\"\n[[stage]]\nname = \"uneven\"\nkind = \"prune\"\nfrom = \"given\"\ntarget = \"uneven\"\nscores "
              "= \"wanda_sp\"\nrefit = true\ncalibration_tokens = 2048\n[[stage]]\nname = \"again\"\nkind = "
              "\"prune\"\nfrom = \"uneven\"\ntarget = \"cut_3\"\nscores = \"random\"\nrefit = "
              "true\ncalibration_tokens = 2048\n"));
    const Outcome done = run(given.scratch.path, {"run", "chain.toml", "--out", "r"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    for (const char* stage : {"uneven", "again"}) {
      const auto results = nlohmann::json::parse(slurp(given.scratch.path / "r" / stage / "manifest.json"))["results"];
      for (const auto& layer : results["refit"]["layers"])
        CHECK(layer["after"].get<double>() < layer["before"].get<double>());
    }
    CHECK(load_model(given.scratch.path / "r/again/model").model.config.intermediate_size ==
          std::vector<int64_t>{16, 16});
  }
}
