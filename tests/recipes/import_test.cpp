// A model from elsewhere as source and teacher: shapes from its config.json, padded rows of its vocabulary cut, another
// tokenizer refused before any work.
#include <doctest/doctest.h>

#include "tests/recipes/given_model.h"

using namespace coppice::test;

namespace {

const std::string kRecipe = std::string("name = \"given\"\n") + kImportAndCut + R"([[stage]]
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
    spill(scratch.path / "given.toml", kRecipe.substr(0, kRecipe.find("[[stage]]\nname = \"pruned\"")));
    const coppice::Tokenizer tokenizer = train_tokenizer_on_prose(scratch.path / "own.model", scratch.path / "corpus");
    std::string plain;
    for (const int64_t rows : {384, 385, 2048}) {
      CAPTURE(rows);
      fs::remove_all(scratch.path / "elsewhere");
      fs::remove_all(scratch.path / "runs");
      write_hf_folder(scratch.path / "elsewhere", tokenizer, rows);
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
    const coppice::Tokenizer tokenizer = train_tokenizer_on_prose(scratch.path / "own.model", scratch.path / "corpus");
    const coppice::Model padded = write_hf_folder(scratch.path / "elsewhere", tokenizer, 448);

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
    const coppice::Tokenizer own = train_tokenizer_on_prose(scratch.path / "own.model", scratch.path / "corpus");
    const coppice::Tokenizer other =
        train_tokenizer_on(scratch.path / "other.model", slurp(scratch.path / "corpus/code.jsonl").substr(0, 4000));
    write_hf_folder(scratch.path / "elsewhere", own, 384);
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
    write_hf_folder(scratch.path / "elsewhere", own, 384, /*qk_norm=*/false);
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
