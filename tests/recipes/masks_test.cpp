// learn_masks in the real program: every method through cut and training, one budget for all layers, collapse, masks of
// another model, two masks compared.
#include <ATen/ATen.h>
#undef CHECK  // c10's, which aborts
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "pruning/mask_file.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/checkpoint/checkpoint.h"
#include "src/model/parameters.h"
#include "tests/recipes/program.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice::test;

namespace {

const char* const kRecipe = R"(
name = "masks"
threads = 1
[data]
heldout_share = 0.08
[[data.domain]]
name = "prose"
path = "corpus/prose.jsonl"
[[data.domain]]
name = "code"
path = "corpus/code.jsonl"
[tokenizer]
vocab_size = 384
training_bytes = 60000
[model.source]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 64
[model.student]
intermediate_size = 24
[[stage]]
name = "dense"
kind = "train"
model = "source"
tokens = 16384
seq_len = 64
batch_tokens = 512
[[stage]]
name = "masks"
kind = "learn_masks"
from = "dense"
tokens = 10240
seq_len = 64
batch_tokens = 512
calibration_tokens = 2048
checkpoint_steps = 5
on_collapse = "warn"
[[stage]]
name = "pruned"
kind = "prune"
from = "masks"
[[stage]]
name = "core"
kind = "train"
from = "pruned"
tokens = 1024
seq_len = 64
batch_tokens = 512
)";

Outcome run_with(const fs::path& folder, const std::string& out, std::vector<std::string> set) {
  std::vector<std::string> arguments = {"run", "masks.toml", "--out", out};
  for (std::string& text : set) arguments.insert(arguments.end(), {"--set", std::move(text)});
  return run(folder, arguments);
}

/// Values of one key of metrics.jsonl, in order.
std::vector<double> metric(const fs::path& path, const std::string& key) {
  std::vector<double> values;
  std::istringstream lines(slurp(path));
  for (std::string line; std::getline(lines, line);)
    if (const auto row = nlohmann::json::parse(line); row.contains(key)) values.push_back(row[key].get<double>());
  return values;
}

std::vector<size_t> widths(const fs::path& plan) {
  std::vector<size_t> kept;
  const nlohmann::json written = nlohmann::json::parse(slurp(plan));
  for (const auto& layer : written["layers"]) kept.push_back(layer["kept"].size());
  return kept;
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("masks: every method leaves the asked shape; exact Soft-Top-K holds its budget at every step") {
    const Scratch scratch("masks");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    for (const std::string method : {"soft_top_k", "coordinate_descent", "hard_concrete", "straight_through"}) {
      const Outcome done = run_with(scratch.path, "runs/" + method, {"masks.mask_method=\"" + method + "\""});
      INFO(method << ": " << done.err);
      REQUIRE(done.code == 0);
      const fs::path root = scratch.path / "runs" / method;
      CHECK(widths(root / "pruned/prune_plan.json") == std::vector<size_t>{24, 24});
      const std::vector<double> errors = metric(root / "masks/metrics.jsonl", "sum_error");
      REQUIRE(errors.size() == 20);
      if (method == "soft_top_k") CHECK(*std::ranges::max_element(errors) <= 1e-6);
      for (const char* key : {"sharpness", "outside_share", "free_share", "border_gap", "entropy"})
        CHECK(metric(root / "masks/metrics.jsonl", key).size() == 20);
      for (const char* key :
           {"churn", "overlap_magnitude", "overlap_activation", "overlap_random", "heldout_hard_loss"})
        CHECK(metric(root / "masks/metrics.jsonl", key).size() >= 5);
      CHECK(run(scratch.path, {"inspect", "runs/" + method + "/masks/masks.h5"}).out.find("mask by " + method) !=
            std::string::npos);
    }
    const Outcome same =
        run(scratch.path, {"diff", "runs/soft_top_k/masks/masks.h5", "runs/soft_top_k/masks/masks.h5"});
    CHECK(same.code == 0);
    CHECK(same.out.starts_with("equal"));
    const Outcome other =
        run(scratch.path, {"diff", "runs/soft_top_k/masks/masks.h5", "runs/hard_concrete/masks/masks.h5"});
    INFO(other.out << other.err);
    CHECK(other.code == 0);
    CHECK(other.out.starts_with("different"));

    // a mask file of another model
    fs::remove_all(scratch.path / "runs/soft_top_k/pruned");
    const fs::path exchanged = scratch.path / "runs/soft_top_k/masks",
                   given = scratch.path / "runs/hard_concrete/masks";
    const auto trained_sha256 = [](const fs::path& masks) {
      return coppice::load_masks(masks / "masks.h5").source_sha256;
    };
    const std::string own = trained_sha256(exchanged), foreign = trained_sha256(given);
    REQUIRE(own != foreign);
    fs::copy_file(given / "masks.h5", exchanged / "masks.h5", fs::copy_options::overwrite_existing);
    CHECK(run_with(scratch.path, "runs/soft_top_k", {}).err.find("differs from the stage's manifest") !=
          std::string::npos);
    nlohmann::json manifest = nlohmann::json::parse(slurp(exchanged / "manifest.json"));
    for (nlohmann::json& file : manifest["files"])
      if (file["name"] == "masks.h5")
        file.update({{"bytes", fs::file_size(exchanged / "masks.h5")},
                     {"sha256", coppice::sha256_file(exchanged / "masks.h5")}});
    manifest.erase("sha256");
    spill(exchanged / "manifest.json", coppice::seal(manifest));
    const Outcome refused = run_with(scratch.path, "runs/soft_top_k", {});
    INFO(refused.err);
    CHECK(refused.code == 3);
    CHECK(refused.err.find("these masks belong to another model") != std::string::npos);
    CHECK(refused.err.find(own) != std::string::npos);
    CHECK(refused.err.find(foreign) != std::string::npos);
  }

  TEST_CASE(
      "masks: a student as wide as its source leaves nothing to decide: every mask is 1, and the cut is the identity "
      "to the bit") {
    const Scratch scratch("keepall");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    for (const std::string method : {"soft_top_k", "coordinate_descent", "hard_concrete", "straight_through"}) {
      CAPTURE(method);
      const Outcome done = run_with(
          scratch.path, "runs/" + method,
          {"masks.mask_method=\"" + method + "\"", "model.student.intermediate_size=64", "masks.on_collapse=\"stop\"",
           method == "soft_top_k" ? "masks.budget=\"global\"" : "masks.score_init=\"random\""});
      INFO(done.err);
      REQUIRE(done.code == 0);
      CHECK(done.err.find("nothing to decide") != std::string::npos);
      CHECK(done.err.find("nothing to decide") == done.err.rfind("nothing to decide"));
      for (const char* trouble : {"has not decided", "no better than a random", "stopped moving", "exactly 0"})
        CHECK(done.err.find(trouble) == std::string::npos);
      const fs::path root = scratch.path / "runs" / method;
      const coppice::MaskFile masks = coppice::load_masks(root / "masks/masks.h5");
      CHECK(masks.soft_LF.eq(1).all().item<bool>());
      for (const char* key : {"sharpness", "kept_share.0", "kept_share.1"})
        for (const double value : metric(root / "masks/metrics.jsonl", key)) CHECK(value == 1);
      const coppice::LoadedModel trained = coppice::load_model(root / "masks/model"),
                                 cut = coppice::load_model(root / "pruned/model");
      CHECK(whole_master(*trained.model.arena).equal(whole_master(*cut.model.arena)));
      CHECK_FALSE(whole_master(*trained.model.arena)
                      .equal(whole_master(*coppice::load_model(root / "dense/model").model.arena)));
    }
  }

  TEST_CASE("masks: layers that a cut leaves whole keep every bit, between layers that it narrows") {
    const Scratch scratch("mixed");
    write_tiny_run(scratch.path);
    std::string recipe = kRecipe;
    recipe = recipe.substr(0, recipe.find("[[stage]]\nname = \"masks\"")) +
             "[[stage]]\nname = \"pruned\"\nkind = \"prune\"\nfrom = \"dense\"\nscores = \"flap\"\n";
    spill(scratch.path / "masks.toml", recipe);
    const Outcome done = run_with(scratch.path, "runs/mixed", {"model.student.intermediate_size=[64, 24]"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    CHECK(widths(scratch.path / "runs/mixed/pruned/prune_plan.json") == std::vector<size_t>{64, 24});
    const coppice::LoadedModel dense = coppice::load_model(scratch.path / "runs/mixed/dense/model"),
                               cut = coppice::load_model(scratch.path / "runs/mixed/pruned/model");
    for (const coppice::Parameter& row : coppice::parameter_table(dense.model.config))
      if (row.layer == 0) CHECK(dense.model.arena->parameter(row.name).equal(cut.model.arena->parameter(row.name)));
  }

  TEST_CASE(
      "masks: one budget for all layers, in multiples, through cut and training; budgets that cannot be met are "
      "refused with the numbers") {
    const Scratch scratch("budget");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    const Outcome done = run_with(scratch.path, "runs/global",
                                  {"masks.budget=\"global\"", "masks.round_to=8", "masks.score_init=\"activation\""});
    INFO(done.err);
    REQUIRE(done.code == 0);
    const std::vector<size_t> kept = widths(scratch.path / "runs/global/pruned/prune_plan.json");
    CHECK(kept[0] + kept[1] == 48);
    CHECK(kept[0] % 8 == 0);
    const std::vector<double> errors = metric(scratch.path / "runs/global/masks/metrics.jsonl", "sum_error");
    CHECK(*std::ranges::max_element(errors) <= 1e-6);

    const Outcome uneven = run_with(scratch.path, "runs/uneven", {"masks.round_to=7"});
    CHECK(uneven.code == 2);
    CHECK(uneven.err.find("24 is no multiple of round_to = 7") != std::string::npos);
    const Outcome misspelt = run_with(scratch.path, "runs/misspelt", {"masks.mask_method=\"soft_topk\""});
    CHECK(misspelt.code == 2);
    CHECK(misspelt.err.find("did you mean 'soft_top_k'") != std::string::npos);

    // learned again after such a cut: the layers have widths of their own by then
    spill(
        scratch.path / "again.toml",
        std::string(kRecipe) + "[[stage]]\nname = \"again\"\nkind = \"learn_masks\"\nfrom = \"core\"\ntokens = 1024\n");
    const Outcome again = run(scratch.path, {"run", "again.toml", "--set", "masks.budget=\"global\""});
    CHECK(again.code == 2);
    CHECK(again.err.find("again: stage 'pruned' keeps 2 layers x 24 = 48 channels under one budget") !=
          std::string::npos);
    CHECK(run(scratch.path, {"config", "again.toml"}).code == 0);
  }

  TEST_CASE(
      "masks: compact while learning gives the same choice and nearly the same loss in a narrower model, and resumes "
      "to the bit") {
    const Scratch scratch("compact");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    // decides early, so that channels are dead for most of the stage
    const std::vector<std::string> quick = {"masks.k_ramp=0.1", "masks.anneal_end=0.3",
                                            "masks.final_top_k_epsilon=0.02", "masks.score_lr=0.2"};
    std::vector<std::string> compact = quick;
    compact.push_back("masks.compact_after=2");
    REQUIRE(run_with(scratch.path, "runs/whole", quick).code == 0);
    const Outcome done = run_with(scratch.path, "runs/compact", compact);
    INFO(done.err);
    REQUIRE(done.code == 0);
    CHECK(done.err.find("dead channels left the model") != std::string::npos);
    const fs::path whole = scratch.path / "runs/whole", narrow = scratch.path / "runs/compact";
    const std::vector<double> widths_seen = metric(narrow / "masks/metrics.jsonl", "ffn_width");
    REQUIRE(widths_seen.size() == 20);
    CHECK(widths_seen.front() == 64);
    CHECK(widths_seen.back() <= 48);
    CHECK(widths_seen.back() >= 24);
    CHECK(widths(narrow / "pruned/prune_plan.json") == std::vector<size_t>{24, 24});
    const std::vector<double> errors = metric(narrow / "masks/metrics.jsonl", "sum_error");
    CHECK(*std::ranges::max_element(errors) <= 1e-6);
    const auto results = [](const fs::path& stage) {
      return nlohmann::json::parse(slurp(stage / "manifest.json"))["results"];
    };
    const double expected = results(whole / "masks")["heldout_hard_loss"],
                 got = results(narrow / "masks")["heldout_hard_loss"];
    CAPTURE(expected);
    CAPTURE(got);
    CHECK(std::abs(got / expected - 1) <= 1e-4);
    const Outcome compared = run(scratch.path, {"diff", "runs/whole/masks/masks.h5", "runs/compact/masks/masks.h5"});
    INFO(compared.out);
    CHECK(compared.out.find("kept channels agree") != std::string::npos);

    Process process = start(scratch.path, {"run", "masks.toml", "--out", "runs/killed", "--set", compact[0], "--set",
                                           compact[1], "--set", compact[2], "--set", compact[3], "--set", compact[4]});
    while (!process.poll() && metric(scratch.path / "runs/killed/masks/metrics.jsonl", "step").size() < 13)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    process.send(SIGKILL);
    CHECK(process.wait().signal == SIGKILL);
    const Outcome resumed = run_with(scratch.path, "runs/killed", compact);
    INFO(resumed.err);
    CHECK(resumed.code == 0);
    CHECK(resumed.err.find("resuming at step 1") != std::string::npos);
    CHECK(without_clock(slurp(scratch.path / "runs/killed/masks/metrics.jsonl")) ==
          without_clock(slurp(narrow / "masks/metrics.jsonl")));
    CHECK(slurp(scratch.path / "runs/killed/masks/masks.h5") == slurp(narrow / "masks/masks.h5"));

    const Outcome refused =
        run_with(scratch.path, "runs/gates", {"masks.compact_after=2", "masks.mask_method=\"hard_concrete\""});
    CHECK(refused.code == 2);
    CHECK(refused.err.find("compact_after") != std::string::npos);
  }

  TEST_CASE("masks: a collapse ends the run with 6, a healthy run goes on") {
    const Scratch scratch("collapse");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    // raw scores that hardly differ and hardly move: every gate stays at K/F
    const std::vector<std::string> flat = {"masks.score_scale=\"raw\"", "masks.score_init=\"noise\"",
                                           "masks.score_init_std=1e-6", "masks.score_lr=1e-9"};
    std::vector<std::string> stopping = flat;
    stopping.push_back("masks.on_collapse=\"stop\"");
    const Outcome stopped = run_with(scratch.path, "runs/flat", stopping);
    CHECK(stopped.code == 6);
    CHECK(stopped.err.find("has not decided") != std::string::npos);
    const Outcome warned = run_with(scratch.path, "runs/warned", flat);
    CHECK(warned.code == 0);
    CHECK(warned.err.find("has not decided") != std::string::npos);
    const Outcome healthy = run_with(scratch.path, "runs/healthy", {"masks.on_collapse=\"stop\""});
    INFO(healthy.err);
    CHECK(healthy.code == 0);
    CHECK(healthy.err.find("has not decided") == std::string::npos);
    CHECK(healthy.err.find("no better than a random one") == std::string::npos);
  }

  TEST_CASE(
      "masks: a step whose scores have no finite gradient is skipped for them and counts, also with still weights") {
    const Scratch scratch("score_gradient");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    const auto run_broken = [&](const std::string& out, const char* failpoint, const std::string& setting) {
      return run(scratch.path, {"run", "masks.toml", "--out", out, "--set", setting},
                 [=] { setenv("COPPICE_FAILPOINTS", failpoint, 1); });
    };
    const Outcome once = run_broken("runs/once", "masks.score_gradient=nan@3", "masks.max_skipped_steps=1");
    INFO(once.err);
    CHECK(once.code == 0);
    CHECK(once.err.find("step 3: the gradient of the scores is not finite; they stay as they were, the weights have "
                        "moved, and the step counts as skipped") != std::string::npos);
    const Outcome often =
        run_broken("runs/often", "masks.score_gradient=nan@3,masks.score_gradient=nan@4", "masks.max_skipped_steps=1");
    INFO(often.err);
    CHECK(often.code == 6);
    const Outcome still = run_broken("runs/still", "masks.score_gradient=nan@3", "masks.freeze_weights=true");
    CHECK(still.code == 0);
    CHECK(still.err.find("they stay as they were, and the step counts as skipped") != std::string::npos);
  }

  TEST_CASE(
      "masks: a cut no better than a random one ends the run with 6, also when dead channels have left the model") {
    const Scratch scratch("random");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    // scores start as the random choice that the cut is compared with, and stay there
    const std::vector<std::string> random = {"masks.score_init=\"random\"", "masks.score_lr=1e-9"};
    std::vector<std::string> straight = random, dead = random;
    straight.emplace_back("masks.mask_method=\"straight_through\"");
    const Outcome warned = run_with(scratch.path, "runs/warned", straight);
    INFO(warned.err);
    CHECK(warned.code == 0);
    CHECK(warned.err.find("after 60 % of its steps the learned cut is no better than a random one") !=
          std::string::npos);
    CHECK(warned.err.find("after 70 %") == std::string::npos);  // once
    straight.emplace_back("masks.on_collapse=\"stop\"");
    const Outcome stopped = run_with(scratch.path, "runs/stopped", straight);
    CHECK(stopped.code == 6);
    CHECK(stopped.err.find("is no better than a random one") != std::string::npos);
    CHECK(!fs::exists(scratch.path / "runs/stopped/masks/masks.h5"));

    for (const char* option :
         {"masks.k_ramp=0.1", "masks.anneal_end=0.3", "masks.final_top_k_epsilon=0.002", "masks.compact_after=2"})
      dead.emplace_back(option);
    dead.emplace_back("masks.on_collapse=\"stop\"");
    const Outcome compacted = run_with(scratch.path, "runs/compacted", dead);
    INFO(compacted.err);
    CHECK(compacted.code == 6);
    CHECK(compacted.err.find("dead channels left the model") != std::string::npos);
    CHECK(compacted.err.find("after 100 % of its steps the learned cut is no better than a random one") !=
          std::string::npos);
  }

  TEST_CASE(
      "masks: kept sets that stop moving as soon as k has ramped are suspected, also with ten looks at 10, 20, 30 % of "
      "the steps") {
    const Scratch scratch("early");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    const Outcome still = run_with(scratch.path, "runs/still", {"masks.score_lr=1e-9"});  // 20 steps
    INFO(still.err);
    CHECK(still.code == 0);
    CHECK(still.err.find("the kept sets stopped moving after 30 % of the steps") != std::string::npos);
  }

  TEST_CASE("masks: options of a stage change what they name, and only that") {
    const Scratch scratch("options");
    write_tiny_run(scratch.path);
    const struct {
      const char *name, *options;
    } stages[] = {
        {"plain", ""},
        {"frozen", "freeze_weights = true"},
        {"linear", "anneal = \"linear\""},
        {"constant", "anneal = \"constant\""},
        {"descent", "mask_method = \"coordinate_descent\""},
        {"unscaled", "mask_method = \"coordinate_descent\"\ndescent_scaled = false"},
        {"minus_s", "mask_method = \"coordinate_descent\"\ndescent_scaled = false\ndescent_start = \"minus_s\""}};
    const std::string whole = kRecipe;
    std::string recipe = whole.substr(0, whole.find("[[stage]]\nname = \"masks\""));
    for (const auto& stage : stages)
      recipe += std::string("[[stage]]\nname = \"") + stage.name +
                "\"\nkind = \"learn_masks\"\nfrom = \"dense\"\ntokens = 10240\nseq_len = 64\nbatch_tokens = "
                "512\ncalibration_tokens = 2048\n" +
                "on_collapse = \"warn\"\n" + stage.options + "\n";
    spill(scratch.path / "options.toml", recipe);
    const Outcome done = run(scratch.path, {"run", "options.toml", "--out", "runs/options"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    const fs::path root = scratch.path / "runs/options";
    const auto weights = [&](const std::string& stage) {
      std::string bytes;
      for (const auto& entry : fs::directory_iterator(root / stage / "model"))
        if (entry.path().extension() == ".h5") bytes += slurp(entry.path());
      REQUIRE(!bytes.empty());
      return bytes;
    };
    const auto seen = [&](const std::string& stage, const std::string& key) {
      return metric(root / stage / "metrics.jsonl", key);
    };
    const auto scores = [&](const std::string& stage) {
      return coppice::load_masks(root / stage / "masks.h5").scores_LF;
    };

    CHECK((weights("frozen") == weights("dense")));
    CHECK((weights("plain") != weights("dense")));
    CHECK_FALSE(scores("frozen").equal(scores("plain")));  // learned on other weights
    CHECK(scores("frozen").sub(scores("plain")).abs().max().item<float>() < 1);
    const auto moved = seen("frozen", "score_grad_norm");
    CHECK(*std::ranges::max_element(moved) > 0);

    // step 12 of 20 is at p = 0.55, half-way from k_ramp to anneal_end
    CHECK(seen("plain", "top_k_epsilon")[11] == doctest::Approx(std::sqrt(0.05)).epsilon(1e-5));
    CHECK(seen("linear", "top_k_epsilon")[11] == doctest::Approx(0.525).epsilon(1e-5));
    CHECK(seen("linear", "top_k_epsilon").back() == doctest::Approx(0.05).epsilon(1e-5));
    for (const double epsilon : seen("constant", "top_k_epsilon")) CHECK(epsilon == 1);

    // 20 rounds miss k: by how much depends on the epsilon of each round and on the first b
    std::vector<double> errors;
    for (const char* stage : {"descent", "unscaled", "minus_s"}) {
      CHECK(seen(stage, "sum_error")[0] == 0);  // k = F: nothing to choose
      errors.push_back(seen(stage, "sum_error")[11]);
      CHECK(errors.back() > 1e-6);
    }
    CHECK(errors[0] != errors[1]);
    CHECK(errors[1] != errors[2]);
  }

  TEST_CASE("masks: hard_concrete starts its gates at 5 unless score_init names a score") {
    const Scratch scratch("gates");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    for (const bool named : {false, true}) {
      const Outcome resolved =
          run(scratch.path, {"config", "masks.toml", "--set", "masks.mask_method=\"hard_concrete\"", "--set",
                             named ? "masks.score_init=\"activation\"" : "masks.score_lr=0.05"});
      CHECK(resolved.code == 0);
      CHECK((resolved.out.find("score_init = \"noise\"") == std::string::npos) == named);
    }
    CHECK(run(scratch.path, {"config", "masks.toml"}).out.find("score_init = \"activation\"") != std::string::npos);
  }
}
