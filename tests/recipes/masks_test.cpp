// learn_masks in the real program: every method through cut and training, one budget for all layers, collapse, masks of another model, two masks compared.
#include <doctest/doctest.h>

#include <algorithm>
#include <sstream>

#include "tests/recipes/program.h"

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
      for (const char* key : {"churn", "overlap_magnitude", "overlap_activation", "overlap_random", "heldout_hard_loss"})
        CHECK(metric(root / "masks/metrics.jsonl", key).size() >= 5);
      CHECK(run(scratch.path, {"inspect", "runs/" + method + "/masks/masks.h5"}).out.find("mask by " + method) != std::string::npos);
    }
    const Outcome same = run(scratch.path, {"diff", "runs/soft_top_k/masks/masks.h5", "runs/soft_top_k/masks/masks.h5"});
    CHECK(same.code == 0);
    CHECK(same.out.starts_with("equal"));
    const Outcome other = run(scratch.path, {"diff", "runs/soft_top_k/masks/masks.h5", "runs/hard_concrete/masks/masks.h5"});
    INFO(other.out << other.err);
    CHECK(other.code == 0);
    CHECK(other.out.starts_with("different"));

    // a mask file of another model
    fs::remove_all(scratch.path / "runs/soft_top_k/pruned");
    fs::copy_file(scratch.path / "runs/hard_concrete/masks/masks.h5", scratch.path / "runs/soft_top_k/masks/masks.h5", fs::copy_options::overwrite_existing);
    CHECK(run_with(scratch.path, "runs/soft_top_k", {}).code == 3);
  }

  TEST_CASE("masks: one budget for all layers, in multiples, through cut and training; budgets that cannot be met are refused with the numbers") {
    const Scratch scratch("budget");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    const Outcome done = run_with(scratch.path, "runs/global", {"masks.budget=\"global\"", "masks.round_to=8", "masks.score_init=\"activation\""});
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
  }

  TEST_CASE("masks: compact while learning gives nearly the same choice and loss in a narrower model, and resumes to the bit") {
    const Scratch scratch("compact");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    // decides early, so that channels are dead for most of the stage
    const std::vector<std::string> quick = {"masks.k_ramp=0.1", "masks.anneal_end=0.3", "masks.final_top_k_epsilon=0.02", "masks.score_lr=0.2"};
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
    const auto results = [](const fs::path& stage) { return nlohmann::json::parse(slurp(stage / "manifest.json"))["results"]; };
    const double expected = results(whole / "masks")["heldout_hard_loss"], got = results(narrow / "masks")["heldout_hard_loss"];
    CHECK(got == doctest::Approx(expected).epsilon(0.01));
    const Outcome compared = run(scratch.path, {"diff", "runs/whole/masks/masks.h5", "runs/compact/masks/masks.h5"});
    MESSAGE(expected << " " << got << "\n" << compared.out);

    Process process = start(scratch.path, {"run", "masks.toml", "--out", "runs/killed", "--set", compact[0], "--set", compact[1], "--set", compact[2], "--set",
                                           compact[3], "--set", compact[4]});
    while (!process.poll() && metric(scratch.path / "runs/killed/masks/metrics.jsonl", "step").size() < 13)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    process.send(SIGKILL);
    CHECK(process.wait().signal == SIGKILL);
    const Outcome resumed = run_with(scratch.path, "runs/killed", compact);
    INFO(resumed.err);
    CHECK(resumed.code == 0);
    CHECK(resumed.err.find("resuming at step 1") != std::string::npos);
    CHECK(without_clock(slurp(scratch.path / "runs/killed/masks/metrics.jsonl")) == without_clock(slurp(narrow / "masks/metrics.jsonl")));
    CHECK(slurp(scratch.path / "runs/killed/masks/masks.h5") == slurp(narrow / "masks/masks.h5"));

    const Outcome refused = run_with(scratch.path, "runs/gates", {"masks.compact_after=2", "masks.mask_method=\"hard_concrete\""});
    CHECK(refused.code == 2);
    CHECK(refused.err.find("compact_after") != std::string::npos);
  }

  TEST_CASE("masks: a collapse ends the run with 6, a healthy run goes on") {
    const Scratch scratch("collapse");
    write_tiny_run(scratch.path);
    spill(scratch.path / "masks.toml", kRecipe);
    // raw scores that hardly differ and hardly move: every gate stays at K/F
    const std::vector<std::string> flat = {"masks.score_scale=\"raw\"", "masks.score_init=\"noise\"", "masks.score_init_std=1e-6", "masks.score_lr=1e-9"};
    std::vector<std::string> stopping = flat;
    stopping.push_back("masks.on_collapse=\"stop\"");
    const Outcome stopped = run_with(scratch.path, "runs/flat", stopping);
    CHECK(stopped.code == 6);
    CHECK(stopped.err.find("has not decided") != std::string::npos);
    const Outcome warned = run_with(scratch.path, "runs/warned", flat);
    CHECK(warned.code == 0);
    CHECK(warned.err.find("has not decided") != std::string::npos);
    const Outcome healthy = run_with(scratch.path, "runs/healthy", {});
    CHECK(healthy.code == 0);
    CHECK(healthy.err.find("has not decided") == std::string::npos);
  }
}
