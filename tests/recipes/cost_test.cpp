// The plan and the finished run count the same work: training, live teachers, labels, and the text that scores read.
#include "recipes/run/cost.h"

#include <doctest/doctest.h>

#include "src/model/parameters.h"
#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;

namespace {

const char* const kStages = R"(
[[stage]]
name = "dense"
kind = "train"
model = "source"
tokens = 4096
seq_len = 64
batch_tokens = 512

[[stage]]
name = "masks"
kind = "learn_masks"
from = "dense"
tokens = 2048
seq_len = 64
batch_tokens = 512
score_init = "taylor"
calibration_tokens = 3000
on_collapse = "warn"

[[stage]]
name = "noise"
kind = "learn_masks"
from = "dense"
tokens = 2048
seq_len = 64
batch_tokens = 512
score_init = "noise"
on_collapse = "warn"

[[stage]]
name = "learned"
kind = "prune"
from = "masks"

[[stage]]
name = "by_magnitude"
kind = "prune"
from = "dense"
scores = "magnitude"

[[stage]]
name = "by_activation"
kind = "prune"
from = "dense"
scores = "activation"
calibration_tokens = 4096

[[stage]]
name = "by_taylor"
kind = "prune"
from = "dense"
scores = "taylor"
calibration_tokens = 4096

[[stage]]
name = "core"
kind = "train"
from = "learned"
teacher = "dense"
loss = "kl"
distil_from = 0.3
tokens = 5120
seq_len = 64
batch_tokens = 512
micro_batch_tokens = 256
)";

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("cost: activations of a step on the CPU, less what is computed again but for one layer of it") {
    ModelConfig config = preset("test", "");  // hidden 32, two heads and one of keys of 16: 64 packed
    config.intermediate_size = {96, 40};
    const double layers = 8 * 32 + 3 * 64;
    CHECK(activation_bytes_per_token(config) == 4 * (2 * layers + 5 * (96 + 40)));
    CHECK(activation_bytes_per_token(config, Recompute::elementwise) ==
          4 * (2 * (2 * 32 + 3 * 64) + 2 * (96 + 40) + 6 * 32 + 3 * 96));
    CHECK(activation_bytes_per_token(config, Recompute::gate_up) == 4 * (2 * (2 * 32 + 3 * 64) + 6 * 32 + 5 * 96));
    CHECK(activation_bytes_per_token(config, Recompute::layer) == 4 * (2 * 32 + 7 * 32 + 3 * 64 + 5 * 96));
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("cost: plan and run count the same FLOPs, a live teacher and calibration passes among them") {
    const Scratch scratch("cost");
    write_tiny_run(scratch.path);
    const std::string tiny = slurp(scratch.path / "tiny.toml");
    spill(scratch.path / "cost.toml", tiny.substr(0, tiny.find("[[stage]]")) + kStages);
    const Outcome done = run(scratch.path, {"run", "cost.toml", "--out", "runs/cost"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    const auto counted = [&](const std::string& stage) {
      return nlohmann::json::parse(slurp(scratch.path / "runs/cost" / stage / "manifest.json"))
          .at("flops")
          .get<double>();
    };
    const Recipe recipe = load_recipe((scratch.path / "cost.toml").string(), {}, {});
    for (const StageCost& stage : estimate_cost(recipe, 1e6, 0).stages) {
      if (stage.kind == "data") continue;
      CAPTURE(stage.name);
      CHECK(counted(stage.name) == doctest::Approx(stage.flops).epsilon(1e-12));
    }
    const ModelConfig source = recipe.model_after("dense"), student = recipe.model_after("core");
    const double read = forward_flops_per_token(source, 256);  // scores read windows of 256, eight at a time
    CHECK(counted("by_magnitude") == 0);
    CHECK(counted("learned") == 0);
    CHECK(counted("by_activation") == 4096 * read);
    CHECK(counted("by_taylor") == 2 * 4096 * read);  // and the gradient of the activations
    CHECK(counted("masks") - counted("noise") == 2 * 4096 * read);
    // 7 of 10 steps ask the teacher
    CHECK(counted("core") ==
          doctest::Approx(5120 * training_flops_per_token(student, 64) + 7 * 512 * forward_flops_per_token(source, 64))
              .epsilon(1e-12));
  }
}
