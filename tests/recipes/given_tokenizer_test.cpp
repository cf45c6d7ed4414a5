// Tokenizers from elsewhere through the program: what cannot be worked with or exported is refused by `config`,
// everything else runs through.
#include <doctest/doctest.h>

#include "recipes/language/sources.h"
#include "src/text/documents.h"
#include "tests/recipes/given_model.h"
#include "tests/recipes/score_by_hand.h"
#include "tests/tokens/tokenizer_models.h"

using namespace coppice::test;

namespace {

const std::string kRecipe = std::string("name = \"given\"\n") + kImportAndCut + R"([[stage]]
name = "scores"
kind = "evaluate"
of = ["dense", "pruned"]
seq_len = 64
tokens = 4096
tasks = "choices.jsonl"
)";
const char* const kExport = R"([[stage]]
name = "release"
kind = "export"
from = "pruned"
)";

std::string with_vocab(std::string recipe, size_t vocab_size) {
  return recipe.replace(recipe.find("= 384"), 5, "= " + std::to_string(vocab_size));
}

std::vector<TokenizerCase> table(const fs::path& folder) {
  return tokenizer_table(train_tokenizer_on_prose(folder / "trained.model", folder / "corpus").pieces());
}

/// A model with the tokenizer of this row.
void write_elsewhere(const fs::path& folder, const TokenizerCase& row) {
  spill(folder.parent_path() / "row.model", row.file.bytes());
  write_hf_folder(folder, coppice::Tokenizer::load(folder.parent_path() / "row.model"), std::ssize(row.file.pieces));
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE(
      "given tokenizer: config refuses what cannot be loaded (3) or exported (2, with the line), and nothing else") {
    const Scratch scratch("given_config");
    write_corpus(scratch.path / "corpus");
    std::string recipe = kRecipe;
    recipe = recipe.substr(0, recipe.find("[model.source]")) + R"([model.source]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 96
[[stage]]
name = "pruned"
kind = "train"
model = "source"
tokens = 2048
seq_len = 64
batch_tokens = 512
)";
    for (const TokenizerCase& row : table(scratch.path)) {
      INFO(row.name);
      spill(scratch.path / "elsewhere/tokenizer.model", row.file.bytes());
      for (const bool exports : {false, true}) {
        spill(scratch.path / "given.toml", with_vocab(recipe, row.file.pieces.size()) + (exports ? kExport : ""));
        const std::string refusal = !row.load_refusal.empty() ? row.load_refusal : exports ? row.export_refusal : "";
        const Outcome outcome = run(scratch.path, {"config", "given.toml"});
        INFO(outcome.err);
        CHECK(outcome.code == (!row.load_refusal.empty() ? 3 : refusal.empty() ? 0 : 2));
        CHECK(outcome.err.find(refusal) != std::string::npos);
        if (outcome.code == 2) CHECK(outcome.err.find("given.toml:24: stage 'release': ") != std::string::npos);
        if (outcome.code == 3) CHECK(outcome.err.find("elsewhere/tokenizer.model") != std::string::npos);
      }
    }
  }

  TEST_CASE("given tokenizer: another vocab_size is refused with the recipe") {
    const Scratch scratch("given_size");
    write_corpus(scratch.path / "corpus");
    const TokenizerCase row = table(scratch.path).front();
    write_elsewhere(scratch.path / "elsewhere", row);
    spill(scratch.path / "choices.jsonl", "{\"context\": \"The\", \"choices\": [\"tree\", \"x\"], \"answer\": 0}\n");
    spill(scratch.path / "given.toml", with_vocab(kRecipe, 384));
    CHECK(run(scratch.path, {"config", "given.toml"}).code == 0);
    const Outcome outcome = run(scratch.path, {"config", "given.toml", "--set", "tokenizer.vocab_size=300"});
    CHECK(outcome.code == 2);
  }

  TEST_CASE("given tokenizer: config says where vocab_size comes from: the recipe's line, or the tokenizer") {
    const Scratch scratch("given_origin");
    write_corpus(scratch.path / "corpus");
    write_elsewhere(scratch.path / "elsewhere", table(scratch.path).front());
    spill(scratch.path / "choices.jsonl", "{\"context\": \"The\", \"choices\": [\"tree\", \"x\"], \"answer\": 0}\n");
    const auto shown = [&](const std::string& recipe) {
      spill(scratch.path / "given.toml", recipe);
      const Outcome outcome = run(scratch.path, {"config", "given.toml"});
      INFO(outcome.err);
      CHECK(outcome.code == 0);
      const size_t at = outcome.out.find("vocab_size = ");
      return outcome.out.substr(at, outcome.out.find('\n', at) - at);
    };
    CHECK(shown(kRecipe) == "vocab_size = 384  # given.toml:9");
    std::string without = kRecipe;
    CHECK(shown(without.erase(without.find("vocab_size = 384\n"), 17)) ==
          "vocab_size = 384  # tokenizer elsewhere/tokenizer.model");
  }

  TEST_CASE("given tokenizer: it is opened once for all that is asked of it") {
    const Scratch scratch("given_once");
    write_corpus(scratch.path / "corpus");
    const fs::path file = scratch.path / "trained.model";
    const std::string fingerprint = train_tokenizer_on_prose(file, scratch.path / "corpus").fingerprint();
    coppice::Sources sources;
    CHECK(coppice::tokenizer_vocab_size(sources, file) == 384);
    fs::remove(file);
    CHECK(coppice::tokenizer_fingerprint(sources, file) == fingerprint);
    CHECK(&sources.tokenizer(file) == &sources.tokenizer(file));
  }

  TEST_CASE(
      "given tokenizer: dummy prefix and missing pieces run through import, cut, evaluation, tasks, export and "
      "generation") {
    for (const char* name : {"llama", "no_bos", "user_defined_and_prefix"}) {
      const Scratch scratch(std::string("given_") + name);
      write_corpus(scratch.path / "corpus");
      const std::vector<TokenizerCase> rows = table(scratch.path);
      const TokenizerCase& row = *std::ranges::find(rows, name, &TokenizerCase::name);
      write_elsewhere(scratch.path / "elsewhere", row);
      spill(scratch.path / "choices.jsonl",
            "{\"context\": \"The tree\", \"choices\": [\"is tall\", \"x\"], \"answer\": 0}\n{\"context\": \"\", "
            "\"choices\": [\"is tall\", \"x\"], \"answer\": "
            "0}\n");
      spill(scratch.path / "given.toml", with_vocab(kRecipe, row.file.pieces.size()) + kExport);
      const Outcome outcome = run(scratch.path, {"run", "given.toml"});
      INFO(std::string(name) << ": " << outcome.err);
      REQUIRE(outcome.code == 0);
      const fs::path hf = scratch.path / "runs/given/release/hf";
      const coppice::Tokenizer tokenizer = coppice::Tokenizer::load(hf / "tokenizer.model");
      CHECK(tokenizer.has_dummy_prefix() == row.file.add_dummy_prefix);
      const auto config = nlohmann::json::parse(slurp(hf / "config.json"));
      CHECK(config["pad_token_id"].is_null() == !tokenizer.pad_id().has_value());
      CHECK(config["bos_token_id"].is_null() == !tokenizer.bos_id().has_value());

      const Outcome text =
          run(scratch.path, {"generate", "runs/given/dense", "--prompt", " the tree", "--max-new-tokens", "3"});
      CHECK(text.code == 0);
      CHECK(text.out.starts_with(" the tree"));
      const Outcome shown = run(scratch.path, {"inspect", "runs/given/data/tokenizer/tokenizer.model"});
      CHECK(shown.code == 0);
      CHECK(shown.out.find(tokenizer.pad_id() ? "pad 3" : "pad none") != std::string::npos);
      CHECK((shown.out.find("dummy prefix") != std::string::npos) == tokenizer.has_dummy_prefix());
    }
  }

  TEST_CASE("given tokenizer: a language model scores text behind its BOS, or behind EOS where it has none") {
    for (const char* name : {"llama", "no_bos"}) {
      CAPTURE(std::string(name));
      const Scratch scratch(std::string("score_behind_") + name);
      write_corpus(scratch.path / "corpus");
      const std::vector<TokenizerCase> rows = table(scratch.path);
      write_elsewhere(scratch.path / "elsewhere", *std::ranges::find(rows, name, &TokenizerCase::name));
      const std::string text = "The forester cuts the coppice in winter.";
      spill(scratch.path / "texts.jsonl", nlohmann::json({{"id", "0"}, {"text", text}}).dump() + "\n");
      const Outcome outcome = run(scratch.path, {"data", "classify", "texts.jsonl", "-o", "out", "--model", "elsewhere",
                                                 "--score", "bits", "--min-score", "-100"});
      INFO(outcome.err);
      REQUIRE(outcome.code == 0);
      const coppice::OpenedModel opened = coppice::open_model(scratch.path / "elsewhere");
      const auto bos = opened.tokenizer.bos_id();
      REQUIRE(bos.has_value() == (std::string(name) == "llama"));
      std::vector<double> scores;
      coppice::for_each_document(scratch.path / "out/documents/texts/texts.jsonl.zst",
                                 [&](coppice::Document&& document) { scores.push_back(document.scores.at(0).value); },
                                 {.keep_fields = true});
      REQUIRE(scores.size() == 1);
      CHECK(scores[0] ==
            doctest::Approx(score_by_hand(opened, bos.value_or(opened.tokenizer.eos_id()), text)).epsilon(1e-4));
    }
  }

  TEST_CASE("tokenizer training: base64 and a text without spaces are cut for the trainer, and a line says so") {
    const Scratch scratch("long_words");
    std::string corpus;
    for (int i = 0; i < 40; ++i) {
      std::string text = "document ";
      for (uint64_t k = 0; k < (i % 4 == 0 ? 40'000U : 60U); ++k)
        text += "abcdefghijklmnopqrstuvwxyz0123456789+/"[(k * k + static_cast<uint64_t>(i) * 7 + k / 38) % 38];
      corpus += nlohmann::json({{"id", "d" + std::to_string(i)}, {"text", text}}).dump() + "\n";
    }
    spill(scratch.path / "corpus/prose.jsonl", corpus);
    spill(scratch.path / "long.toml", R"(name = "long"
threads = 1
[data]
heldout_share = 0.2
[[data.domain]]
name = "prose"
path = "corpus/prose.jsonl"
[tokenizer]
vocab_size = 320
[model.source]
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 32
[[stage]]
name = "dense"
kind = "train"
model = "source"
tokens = 512
seq_len = 32
batch_tokens = 256
)");
    const Outcome outcome = run(scratch.path, {"data", "tokenize", "long.toml"});
    INFO(outcome.err);
    CHECK(outcome.code == 0);
    CHECK(outcome.err.find("documents are cut for the trainer, which takes no words above 32769 characters") !=
          std::string::npos);
    const Outcome large = run(
        scratch.path, {"data", "tokenize", "long.toml", "--set", "tokenizer.vocab_size=270", "--out", "runs/small"});
    CHECK(large.code == 2);
    CHECK(large.err.find("or more, or lower tokenizer.character_coverage") != std::string::npos);
  }
}
