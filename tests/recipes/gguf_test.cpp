// GGUF and the rest of the program: a model goes out as a GGUF file, comes in again through a recipe or `coppice
// import`, and is the same model with the same tokenizer.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "src/checkpoint/model_card.h"
#include "tests/recipes/given_model.h"

using namespace coppice::test;

namespace {

/// The recipe of a model that lies at `path`, tokenizer and all, and is evaluated.
std::string recipe_of(const std::string& path) {
  return fmt::format(R"(
name = "again"
threads = 1
[data]
heldout_share = 0.08
[[data.domain]]
name = "prose"
path = "corpus/prose.jsonl"
[tokenizer]
path = "{0}"
[model.source]
preset = "{0}"
[[stage]]
name = "dense"
kind = "import"
path = "{0}"
[[stage]]
name = "scores"
kind = "evaluate"
of = ["dense"]
seq_len = 64
tokens = 2048
)",
                     path);
}

Outcome run_well(const fs::path& folder, const std::vector<std::string>& arguments) {
  Outcome outcome = run(folder, arguments);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  return outcome;
}

std::string fingerprint_of(const fs::path& folder, const std::string& tokenizer) {
  const std::string shown = run_well(folder, {"inspect", tokenizer}).out;
  return shown.substr(shown.find("fingerprint"));
}

constexpr const char* kWeights = "model/part-00000.h5";
constexpr const char* kFile = "runs/chain/release/gguf/chain-pruned-F32.gguf";

/// A run that has written one.
struct ExportedRun {
  GivenModel given;
  const fs::path& folder = given.scratch.path;
  explicit ExportedRun(const std::string& name) : given(name) {
    spill(folder / "chain.toml", given.recipe(kCutAndExport));
    run_well(folder, {"run", "chain.toml"});
    REQUIRE(fs::exists(folder / kFile));
  }
};

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("gguf: what a run exports comes in again with the same weights, ids and loss") {
    const ExportedRun exported("gguf_again");
    const fs::path& folder = exported.folder;
    const auto manifest = nlohmann::json::parse(slurp(folder / "runs/chain/release/manifest.json"));
    CHECK(manifest["results"]["gguf"]["file"] == "chain-pruned-F32.gguf");
    CHECK(manifest["results"]["gguf"]["bytes"] == fs::file_size(folder / kFile));
    CHECK(manifest["results"]["gguf"]["reimport_logit_difference"] <= 1e-4);

    run_well(folder, {"import", kFile, "-o", "models/again"});
    std::string losses;
    for (const char* path : {kFile, "models/again", "runs/chain/release/hf"}) {
      CAPTURE(path);
      fs::remove_all(folder / "runs/again");
      spill(folder / "again.toml", recipe_of(path));
      run_well(folder, {"run", "again.toml"});
      CHECK((slurp(folder / "runs/again/dense" / kWeights) == slurp(folder / "runs/chain/pruned" / kWeights)));
      CHECK(fingerprint_of(folder, "runs/again/data/tokenizer/tokenizer.model") == fingerprint_of(folder, "own.model"));
      const auto report = nlohmann::json::parse(slurp(folder / "runs/again/report.json"));
      const std::string loss = report["models"][0]["loss"].dump();
      CHECK((losses.empty() || losses == loss));
      losses = loss;
      CHECK(run_well(folder, {"run", "again.toml"}).out.find("already complete") != std::string::npos);
    }
  }

  TEST_CASE(
      "gguf: verbs take a GGUF file, an imported folder or a Hugging Face folder where a stage's folder would do") {
    const ExportedRun exported("gguf_verbs");
    const fs::path& folder = exported.folder;
    CHECK(run_well(folder, {"import", kFile, "-o", "models/smol"}).out.find("2 layers x 32, vocabulary 384") !=
          std::string::npos);
    std::string text;
    for (const char* path : {"runs/chain/pruned", kFile, "models/smol", "runs/chain/release/hf"}) {
      CAPTURE(path);
      const std::string out = run_well(folder, {"generate", path, "--prompt", "The", "--max-new-tokens", "12"}).out;
      CHECK(out.starts_with("The"));
      if (std::string(path) != "runs/chain/pruned") {  // a stage's own text begins behind EOS, as it was trained
        CHECK((text.empty() || text == out));
        text = out;
      }
      CHECK(run_well(folder, {"inspect", path}).out.find("heads 2/1 x 16, FFN 64") != std::string::npos);
    }
    run_well(folder, {"export", "models/smol", "-o", "out", "--format", "hf,gguf"});
    const std::string shown = run_well(folder, {"inspect", "out/model.gguf"}).out;
    CHECK(shown.find("architecture qwen3") != std::string::npos);
    CHECK(shown.find("made from chain-pruned") != std::string::npos);
    CHECK(shown.find("blk.1.ffn_down.weight") != std::string::npos);
    CHECK((slurp(folder / "out/hf/model.safetensors") == slurp(folder / "runs/chain/release/hf/model.safetensors")));
    for (const char* type : {"f16", "bf16", "q8_0", "q4_0"}) {
      CAPTURE(type);
      const std::string file = fmt::format("{}.gguf", type);
      run_well(folder, {"export", kFile, "-o", file, "--format", "gguf", "--quantization", type});
      run_well(folder, {"generate", file, "--prompt", "The", "--max-new-tokens", "2"});
      CHECK(run_well(folder, {"inspect", file}).out.find("most weights") != std::string::npos);
    }
    CHECK(fs::file_size(folder / "q4_0.gguf") < fs::file_size(folder / "q8_0.gguf"));
    CHECK(fs::file_size(folder / "q8_0.gguf") < fs::file_size(folder / "bf16.gguf"));
  }

  TEST_CASE("gguf: the license of a Hugging Face folder, and what its model was made from, go along to both formats") {
    const GivenModel given("license");
    const fs::path& folder = given.scratch.path;
    spill(folder / "chain.toml", given.recipe(kCutAndExport));
    run_well(folder, {"run", "chain.toml"});
    CHECK_FALSE(fs::exists(folder / "runs/chain/release/hf/README.md"));
    CHECK(run_well(folder, {"inspect", kFile}).out.find("license") == std::string::npos);

    fs::remove_all(folder / "runs");
    spill(folder / "hf/README.md",
          "---\nlicense: other\nlicense_name: little-license\nmodel_name: Little\nbase_model: org/Large\n---\n");
    const std::string said = run_well(folder, {"run", "chain.toml"}).err;
    CHECK(said.find("kept for exports: license little-license") != std::string::npos);
    run_well(folder, {"import", "hf", "-o", "models/little"});
    run_well(folder, {"export", "models/little", "-o", "out", "--format", "hf,gguf"});
    for (const char* exported : {"runs/chain/release/hf", "out/hf"}) {
      CAPTURE(exported);
      const coppice::GgufGeneral card = coppice::read_model_card(folder / exported);
      CHECK(card.license == "other");
      CHECK(card.license_name == "little-license");
      CHECK((card.base_models ==
             std::vector<coppice::GgufReference>{{.name = "Little"}, {.name = "Large", .organization = "org"}}));
    }
    for (const char* exported : {kFile, "out/model.gguf"}) {
      CAPTURE(exported);
      const std::string shown = run_well(folder, {"inspect", exported}).out;
      CHECK(shown.find("license little-license\n") != std::string::npos);
      CHECK(shown.find("made from Little\nmade from org/Large\n") != std::string::npos);
    }
  }

  TEST_CASE("gguf: what cannot be is refused in one line before work, and leaves nothing behind") {
    const ExportedRun exported("gguf_refused");
    const fs::path& folder = exported.folder;
    const auto refused = [&](const std::vector<std::string>& arguments, int code, const char* part) {
      const Outcome outcome = run(folder, arguments);
      CAPTURE(outcome.err);
      CHECK(outcome.code == code);
      CHECK((outcome.err.find(part) != std::string::npos));
    };
    refused({"import", kFile, "-o", "runs"}, 2, "exists already");
    refused({"import", "nothing.gguf", "-o", "models/x"}, 3, "no such file");
    const std::string bytes = slurp(folder / kFile);
    spill(folder / "short.gguf", bytes.substr(0, bytes.size() / 2));
    refused({"import", "short.gguf", "-o", "models/x"}, 3, "short.gguf");
    refused({"generate", "short.gguf", "--prompt", "The"}, 3, "short.gguf");
    refused({"inspect", "short.gguf"}, 3, "short.gguf");
    spill(folder / "again.toml", recipe_of("short.gguf"));
    refused({"config", "again.toml"}, 3, "short.gguf");
    CHECK_FALSE(fs::exists(folder / "models"));
    refused({"config", "chain.toml", "--set", "release.quantization=\"q2_k\""}, 2, "quantization");
    refused({"config", "chain.toml", "--set", "release.formats=[\"onnx\"]"}, 2, "formats");
  }
}
