// The keys that say where a stage computes, in which element type and with which attention: the recipe's, a stage's
// own, what they come to on this machine; what it lacks is refused before any work, what it has changed since a
// checkpoint is said.
#include "recipes/language/placement_options.h"

#include "recipes/language/recipe.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/device.h"  // before any CHECK

#include <doctest/doctest.h>

#include "recipes/folder/run_folder.h"
#include "src/base/errors.h"
#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;

namespace {

/// small.toml without the device that tests compute on.
const std::string kSmall = [] {
  std::string text = slurp(fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/small.toml");
  const std::string line = "device = \"cpu\"\n";
  return text.erase(text.find(line), line.size());
}();

/// It with `--set` of these.
Recipe load(const std::vector<std::string>& settings, const std::string& text = kSmall) {
  const Scratch scratch("placement");
  spill(scratch.path / "small.toml", text);
  std::vector<Override> overrides;
  for (const std::string& setting : settings)
    overrides.push_back({setting.substr(0, setting.find('=')), setting.substr(setting.find('=') + 1), ""});
  return load_recipe((scratch.path / "small.toml").string(), overrides, {});
}

std::string refusal(const std::vector<std::string>& settings, const std::string& text = kSmall) {
  try {
    load(settings, text);
  } catch (const UserError& error) {
    CHECK(error.code() == ExitCode::recipe);
    return error.what();
  }
  return "";
}

std::vector<std::string> keys_of(const PlacementOptions& options) {
  return {options.device, options.compute, options.attention};
}

/// The program's words, with `--set` of these.
std::vector<std::string> with(std::vector<std::string> words, const std::vector<std::string>& settings) {
  for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
  return words;
}

void check_refused(const fs::path& folder, const std::vector<std::string>& words, int code, const std::string& text) {
  const Outcome outcome = run(folder, words);
  INFO(words.front() << ": " << outcome.err);
  CHECK(outcome.code == code);
  CHECK(outcome.err.find('\n') == outcome.err.size() - 1);  // one line
  CHECK(outcome.err.find(text) != std::string::npos);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE(
      "placement: a stage's own keys, key by key, and the recipe's otherwise; stages that compute nothing have none") {
    const Recipe plain = load({});
    CHECK(keys_of(plain.placement) == std::vector<std::string>{"auto", "auto", "repeatable"});
    CHECK(keys_of(plain.stage("dense").placement) == keys_of(plain.placement));
    const Recipe recipe = load({"device=\"cpu\"", "attention=\"fast\"", "pruned.device=\"cuda:1\"",
                                "pruned.attention=\"repeatable\"", "scores.compute=\"fp32\""});
    CHECK(keys_of(recipe.stage("dense").placement) == std::vector<std::string>{"cpu", "auto", "fast"});
    CHECK(keys_of(recipe.stage("pruned").placement) == std::vector<std::string>{"cuda:1", "auto", "repeatable"});
    CHECK(keys_of(recipe.stage("scores").placement) == std::vector<std::string>{"cpu", "fp32", "fast"});
    CHECK(load({}, recipe.resolved).resolved == recipe.resolved);
    CHECK(keys_of(load({"device=\"auto\""}, recipe.resolved).stage("dense").placement) ==
          std::vector<std::string>{"auto", "auto", "fast"});  // a resolved recipe still follows its head
    CHECK(refusal({"release.device=\"cpu\""}).find("unknown key 'device'") != std::string::npos);
  }

  TEST_CASE("placement: what the keys cannot be, with file and line; their names are no stage's") {
    CHECK(refusal({"device=\"tpu\""}) ==
          "--set: device: got 'tpu', expected one of: auto, cpu, cuda, cuda:1; did you mean 'cpu'?");
    for (const char* device : {"cuda:", "cuda:x", "cuda:128", "CPU", "gpu"})
      CHECK_MESSAGE(
          refusal({"dense.device=\"" + std::string(device) + "\""}).find("device: got '") != std::string::npos, device);
    CHECK(refusal({"device=\"\""}).find("device: got ''") != std::string::npos);
    CHECK(refusal({"compute=\"fp16\""}).find("expected one of: auto, fp32, bf16") != std::string::npos);
    CHECK(refusal({"pruned.attention=\"exact\""}).find("expected one of: repeatable, fast") != std::string::npos);
    std::string text = kSmall;
    text.insert(text.find("checkpoint_steps = 4"), "compute = \"half\"\n");
    const auto line =
        std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(text.find("\"half\"")), '\n') + 1;
    CHECK(refusal({}, text).find("small.toml:" + std::to_string(line) + ": compute: got 'half'") != std::string::npos);
    for (const char* name : {"device", "compute", "attention"})
      CHECK_MESSAGE(refusal({"scores.name=\"" + std::string(name) + "\""}).find("the name of a top-level key") !=
                        std::string::npos,
                    name);
  }

  TEST_CASE("placement: no fingerprint depends on it") {
    const Recipe plain = load({}),
                 other = load({"device=\"cuda:1\"", "compute=\"bf16\"", "attention=\"fast\"", "dense.device=\"cpu\""});
    const std::map<std::string, std::string> inputs = {{"dense", "a"}, {"pruned", "b"}};
    for (const Stage& stage : plain.stages)
      CHECK_MESSAGE(stage_identity(plain, stage, inputs, "data") ==
                        stage_identity(other, other.stage(stage.name), inputs, "data"),
                    stage.name);
  }

  TEST_CASE("place: the first device where build and machine have one, bf16 there and fp32 on a CPU, unless told") {
    const auto placed = [](const char* device, const char* compute) {
      const Placement placement = place({.device = device, .compute = compute});
      return device_name(placement.device) + " " + compute_name(placement);
    };
    CHECK(placed("cpu", "auto") == "cpu fp32");
    CHECK(placed("cpu", "bf16") == "cpu bf16");
    CHECK(placed("cuda", "auto") == "cuda:0 bf16");
    CHECK(placed("cuda:3", "fp32") == "cuda:3 fp32");
    const bool there = num_cuda_devices() > 0;
    CHECK(placed("auto", "auto") == (there ? "cuda:0 bf16" : "cpu fp32"));
    CHECK(placed("auto", "fp32") == (there ? "cuda:0 fp32" : "cpu fp32"));
  }
}

TEST_SUITE("recipe") {
  TEST_CASE(
      "placement: a device that is not there is exit 1 before any work, and no matter to plan, config and the data") {
    const Scratch scratch("no_device");
    write_run(scratch.path, "small.toml");
    const std::string device = "device = \"cuda:127\": " + why_not_here(at::Device(at::kCUDA, 127));
    const std::vector<std::string> absent = {"device=\"cuda:127\""};
    check_refused(scratch.path, with({"run", "small.toml"}, absent), 1, "stage 'dense': " + device);
    check_refused(scratch.path, with({"run", "small.toml"}, {"scores.device=\"cuda:127\""}), 1,
                  "stage 'scores': " + device);
    CHECK_FALSE(fs::exists(scratch.path / "runs/small/data"));
    for (const char* verb : {"plan", "config"}) CHECK(run(scratch.path, with({verb, "small.toml"}, absent)).code == 0);
    CHECK(run(scratch.path, with({"data", "tokenize", "small.toml"}, absent)).code == 0);
    REQUIRE(run(scratch.path, {"run", "small.toml"}).code == 0);
    const Outcome again = run(scratch.path, with({"run", "small.toml"}, absent));
    CHECK(again.code == 0);  // what is done needs none, and is what it was
    CHECK(again.out.find("already complete") != std::string::npos);
    const auto recorded = nlohmann::json::parse(slurp(scratch.path / "runs/small/run.json"))["machine"];
    CHECK(recorded["device"] == "cpu");
    CHECK(recorded["compute"] == "fp32");
  }

  TEST_CASE("placement: ablate and labels join refuse it, too") {
    const Scratch scratch("no_device_for_arms");
    write_run(scratch.path, "micro.toml");
    const std::string device = "device = \"cuda:127\": " + why_not_here(at::Device(at::kCUDA, 127));
    check_refused(scratch.path, with({"ablate", "micro.toml"}, {"core.device=\"cuda:127\""}), 1,
                  "stage 'core': " + device);
    CHECK_FALSE(fs::exists(scratch.path / "runs/micro/recipe.toml"));
    std::string text = slurp(scratch.path / "micro.toml");
    text.erase(text.find("[[arm]]"));
    for (const char* key : {"seeds = [1, 2]\n", "reference = \"plain\"\n"})
      text.erase(text.find(key), std::string(key).size());
    spill(scratch.path / "one.toml", text);
    check_refused(scratch.path,
                  with({"labels", "join", "one.toml", "--stage", "labels"}, {"labels.device=\"cuda:127\""}), 1,
                  "stage 'labels': " + device);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("placement: a checkpoint of another device, element type or attention is gone on from, and said to be") {
    const Scratch scratch("other_device");
    write_run(scratch.path, "small.toml");
    const std::vector<std::string> command = {"run", "small.toml"};
    REQUIRE(run(scratch.path, command, [] { setenv("COPPICE_FAILPOINTS", "train.after_step=abort@6", 1); }).signal ==
            SIGKILL);
    const fs::path manifest = scratch.path / "runs/small/dense/ckpt/step-00000004/manifest.json";
    Json facts = read_sealed(manifest, "coppice.checkpoint", 1);
    CHECK(facts["machine"]["device"] == "cpu");
    CHECK(facts["machine"]["compute"] == "fp32");
    CHECK(facts["machine"]["attention"] == "repeatable");
    CHECK(facts["machine"]["recompute"] == "none");
    facts["machine"].update({{"device", "cuda:0"}, {"compute", "bf16"}, {"attention", "fast"}, {"recompute", "layer"}});
    spill(manifest, seal(facts));
    const Outcome resumed = run(scratch.path, command);
    INFO(resumed.err);
    CHECK(resumed.code == 0);
    for (const char* change : {"device \"cuda:0\", now it is \"cpu\"", "compute \"bf16\", now it is \"fp32\"",
                               "attention \"fast\", now it is \"repeatable\""})
      CHECK_MESSAGE(resumed.err.find("the checkpoint was written with " + std::string(change)) != std::string::npos,
                    change);
    CHECK(resumed.err.find("written with recompute") == std::string::npos);  // which rounds nothing
  }

  TEST_CASE("placement: a checkpoint from before these were keys was of a CPU in fp32") {
    const Scratch scratch("older_device");
    write_run(scratch.path, "small.toml");
    const std::vector<std::string> command = {"run", "small.toml"};
    REQUIRE(run(scratch.path, command, [] { setenv("COPPICE_FAILPOINTS", "train.after_step=abort@6", 1); }).signal ==
            SIGKILL);
    const fs::path manifest = scratch.path / "runs/small/dense/ckpt/step-00000004/manifest.json";
    Json facts = read_sealed(manifest, "coppice.checkpoint", 1);
    for (const char* key : {"compute", "attention"}) facts["machine"].erase(key);
    spill(manifest, seal(facts));
    const Outcome resumed = run(scratch.path, command);
    INFO(resumed.err);
    CHECK(resumed.code == 0);
    CHECK(resumed.err.find("resuming at step 4 of 16") != std::string::npos);
    CHECK(resumed.err.find("the checkpoint was written with") == std::string::npos);
  }
}
