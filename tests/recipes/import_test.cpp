// A model from elsewhere as source and teacher: shapes from its config.json, padded rows of its vocabulary cut, another
// tokenizer refused before any work.
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "src/checkpoint/hf_export.h"
#include "src/model/parameters.h"
#include "src/tokens/tokenizer.h"
#include "src/tokens/tokenizer_training.h"
#include "tests/recipes/program.h"

using namespace coppice::test;

namespace {

const char* const kRecipe = R"(
name = "given"
threads = 1
[data]
heldout_share = 0.08
[[data.domain]]
name = "prose"
path = "corpus/prose.jsonl"
[tokenizer]
vocab_size = 384
path = "elsewhere/tokenizer.model"
[model.source]
preset = "elsewhere"
[model.student]
intermediate_size = 32
[[stage]]
name = "dense"
kind = "import"
path = "elsewhere"
[[stage]]
name = "pruned"
kind = "prune"
from = "dense"
scores = "magnitude"
[[stage]]
name = "labels"
kind = "label"
teacher = "dense"
context = 64
coverage = "used"
[[stage]]
name = "core"
kind = "train"
from = "pruned"
labels = "labels"
tokens = 2048
seq_len = 64
batch_tokens = 512
[[stage]]
name = "scores"
kind = "evaluate"
of = ["dense", "pruned", "core"]
seq_len = 64
tokens = 4096
)";

/// A folder as another program would leave it: `rows` rows in the vocabulary table, those beyond the tokenizer's ids so
/// large that any softmax over them is ruined.
coppice::Model write_padded_model(const fs::path& folder, const coppice::Tokenizer& tokenizer, int64_t rows,
                                  bool qk_norm = true) {
  coppice::ModelConfig config{.vocab_size = rows,
                              .hidden_size = 32,
                              .num_hidden_layers = 2,
                              .num_attention_heads = 2,
                              .num_key_value_heads = 1,
                              .head_dim = 16,
                              .intermediate_size = {96, 96},
                              .qk_norm = qk_norm};
  coppice::Model model = coppice::make_model(config);
  coppice::initialise_parameters(config, *model.arena, 3);
  if (rows > tokenizer.vocab_size())
    model.arena->parameter("embed_tokens.weight")
        .detach()
        .narrow(0, tokenizer.vocab_size(), rows - tokenizer.vocab_size())
        .fill_(10.0);
  coppice::export_hf(folder, model, tokenizer, "f32");
  return model;
}

/// A tokenizer and a corpus; other text makes another tokenizer.
coppice::Tokenizer train_tokenizer_on(const fs::path& model_file, const std::string& text) {
  bool given = false;
  spill(model_file, coppice::train_tokenizer({.vocab_size = 384}, [&](std::string& line) {
          line = text;
          return !std::exchange(given, true);
        }));
  return coppice::Tokenizer::load(model_file);
}

}  // namespace

namespace {

void patch_json(const fs::path& file, const nlohmann::json& patch) {
  auto json = nlohmann::json::parse(slurp(file));
  json.update(patch);
  spill(file, json.dump());
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("import: rows beyond the tokenizer's ids leave no trace, tokens that they stood for are named") {
    const Scratch scratch("import_rows");
    write_corpus(scratch.path / "corpus");
    spill(scratch.path / "given.toml",
          std::string(kRecipe).substr(0, std::string(kRecipe).find("[[stage]]\nname = \"pruned\"")));
    const coppice::Tokenizer tokenizer =
        train_tokenizer_on(scratch.path / "own.model", slurp(scratch.path / "corpus/prose.jsonl").substr(0, 4000));
    std::string plain;
    for (const int64_t rows : {384, 385, 2048}) {
      CAPTURE(rows);
      fs::remove_all(scratch.path / "elsewhere");
      fs::remove_all(scratch.path / "runs");
      write_padded_model(scratch.path / "elsewhere", tokenizer, rows);
      if (rows == 385) spill(scratch.path / "elsewhere/added_tokens.json", R"({"<|im_end|>":384})");
      const Outcome outcome = run(scratch.path, {"run", "given.toml"});
      INFO(outcome.err);
      REQUIRE(outcome.code == 0);
      const std::string weights = slurp(scratch.path / "runs/given/dense/model/part-00000.h5");
      if (rows == 384) plain = weights;
      CHECK((weights == plain));
      CHECK((outcome.err.find("padded rows beyond 384 ids: they are cut") != std::string::npos) == (rows > 384));
      CHECK((outcome.err.find("adds 1 tokens to its tokenizer.model that do not come along: '<|im_end|>'") !=
             std::string::npos) == (rows == 385));
    }
  }

  TEST_CASE("import: a padded model from a Hugging Face folder is source, teacher and start of the student") {
    const Scratch scratch("import");
    write_corpus(scratch.path / "corpus");
    spill(scratch.path / "given.toml", kRecipe);
    const coppice::Tokenizer tokenizer =
        train_tokenizer_on(scratch.path / "own.model", slurp(scratch.path / "corpus/prose.jsonl").substr(0, 4000));
    const coppice::Model padded = write_padded_model(scratch.path / "elsewhere", tokenizer, 448);

    const Outcome outcome = run(scratch.path, {"run", "given.toml"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    CHECK(outcome.err.find("64 padded rows beyond 384 ids: they are cut") != std::string::npos);
    const auto manifest = nlohmann::json::parse(slurp(scratch.path / "runs/given/dense/manifest.json"));
    CHECK(manifest["results"]["padded_rows"] == 64);
    const auto report = nlohmann::json::parse(slurp(scratch.path / "runs/given/report.json"));
    CHECK(report["models"][0]["role"] == "source");
    CHECK(report["models"][0]["parameters"] == coppice::count_parameters(padded.config) - 64 * 32);
    CHECK(report["models"][0]["loss"].get<double>() < 12.0);  // with the padded rows in the softmax it is far above
    CHECK(report["models"][1]["intermediate_size"] == 32);

    const Outcome again = run(scratch.path, {"run", "given.toml"});
    CHECK(again.code == 0);
    CHECK(again.err.find("padded rows") == std::string::npos);  // imported once
  }

  TEST_CASE("import: what does not fit is refused with the recipe, with both tokenizers' fingerprints") {
    const Scratch scratch("import_refused");
    write_corpus(scratch.path / "corpus");
    spill(scratch.path / "given.toml", kRecipe);
    const coppice::Tokenizer own =
        train_tokenizer_on(scratch.path / "own.model", slurp(scratch.path / "corpus/prose.jsonl").substr(0, 4000));
    const coppice::Tokenizer other =
        train_tokenizer_on(scratch.path / "other.model", slurp(scratch.path / "corpus/code.jsonl").substr(0, 4000));
    write_padded_model(scratch.path / "elsewhere", own, 384);
    const auto refusal = [&](const std::vector<std::string>& set) {
      std::vector<std::string> arguments = {"config", "given.toml"};
      for (const std::string& pair : set) arguments.insert(arguments.end(), {"--set", pair});
      const Outcome outcome = run(scratch.path, arguments);
      CHECK(outcome.code == 2);
      return outcome.err;
    };

    const std::string another = refusal({"tokenizer.path=\"other.model\""});
    CHECK(another.find(own.fingerprint()) != std::string::npos);
    CHECK(another.find(other.fingerprint()) != std::string::npos);
    CHECK(refusal({"tokenizer.path=\"\""}).find("set tokenizer.path = \"elsewhere/tokenizer.model\"") !=
          std::string::npos);
    patch_json(scratch.path / "elsewhere/config.json", {{"vocab_size", 320}});  // ids without a row
    const std::string smaller = refusal({});
    CHECK(smaller.find("320 rows") != std::string::npos);
    CHECK(smaller.find("384 ids") != std::string::npos);
    fs::remove_all(scratch.path / "elsewhere");
    write_padded_model(scratch.path / "elsewhere", own, 384, /*qk_norm=*/false);
    patch_json(scratch.path / "elsewhere/config.json",
               {{"architectures", {"MistralForCausalLM"}}, {"model_type", "mistral"}, {"sliding_window", 64}});
    CHECK(run(scratch.path, {"config", "given.toml"}).code == 0);  // no text of this recipe is longer than the window
    for (const char* set : {"core.seq_len=128", "labels.context=65", "scores.seq_len=128"}) {
      const std::string longer = refusal({set});
      CAPTURE(longer);
      CHECK(
          (longer.find("the model of stage 'dense' sees no more than 64 tokens (sliding_window") != std::string::npos));
    }
    fs::remove(scratch.path / "elsewhere/tokenizer.model");
    CHECK(run(scratch.path, {"config", "given.toml", "--set", "tokenizer.path=\"own.model\""}).code ==
          0);  // its tokenizer.json says the same
    fs::remove(scratch.path / "elsewhere/tokenizer.json");
    const Outcome without = run(scratch.path, {"config", "given.toml", "--set", "tokenizer.path=\"own.model\""});
    CHECK(without.code == 3);
    CHECK(without.err.find("elsewhere: has no tokenizer.model and no tokenizer.json") != std::string::npos);
  }
}
