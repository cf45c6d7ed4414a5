// A corpus, a tokenizer and a Hugging Face folder beside them, as a user with a model of his own has them; and the head
// of recipes that name them.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "recipes/language/recipe.h"
#include "src/checkpoint/hf_export.h"
#include "src/model/parameters.h"
#include "src/tokens/tokenizer.h"
#include "src/tokens/tokenizer_training.h"
#include "tests/recipes/program.h"

namespace coppice::test {

/// A tokenizer of 384 pieces; other text makes another one.
inline Tokenizer train_tokenizer_on(const fs::path& model_file, const std::string& text) {
  bool given = false;
  spill(model_file, train_tokenizer({.vocab_size = 384}, [&](std::string& line) {
          line = text;
          return !std::exchange(given, true);
        }));
  return Tokenizer::load(model_file);
}
inline Tokenizer train_tokenizer_on_prose(const fs::path& model_file, const fs::path& corpus) {
  return train_tokenizer_on(model_file, slurp(corpus / "prose.jsonl").substr(0, 4000));
}

/// A model of two layers of 96 channels as another program would leave it: `rows` rows in the vocabulary table, those
/// beyond the tokenizer's ids so large that any softmax over them is ruined.
inline Model write_hf_folder(const fs::path& folder, const Tokenizer& tokenizer, int64_t rows, bool qk_norm = true) {
  const ModelConfig config{.vocab_size = rows,
                           .hidden_size = 32,
                           .num_hidden_layers = 2,
                           .num_attention_heads = 2,
                           .num_key_value_heads = 1,
                           .head_dim = 16,
                           .intermediate_size = {96, 96},
                           .qk_norm = qk_norm};
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, 3);
  if (rows > tokenizer.vocab_size())
    model.arena->parameter("embed_tokens.weight")
        .detach()
        .narrow(0, tokenizer.vocab_size(), rows - tokenizer.vocab_size())
        .fill_(10.0);
  export_hf(folder, model, tokenizer, "f32");
  return model;
}

/// A recipe behind its name: the model in `elsewhere`, with its own tokenizer, imported and cut to 32 channels.
inline constexpr const char* kImportAndCut = R"(threads = 1
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
)";

/// Stages that import that model, cut it by magnitude to the model `cut_1`, and export what is left.
inline constexpr const char* kCutAndExport = R"(
[[stage]]
name = "dense"
kind = "import"
path = "hf"
[[stage]]
name = "pruned"
kind = "prune"
from = "dense"
scores = "magnitude"
target = "cut_1"
[[stage]]
name = "release"
kind = "export"
from = "pruned"
formats = ["hf", "gguf"]
)";

/// A corpus, tasks, a tokenizer, and a model in hf/.
struct GivenModel {
  Scratch scratch;
  explicit GivenModel(const std::string& name) : scratch(name) {
    write_corpus(scratch.path / "corpus");
    write_tasks(scratch.path);
    write_hf_folder(scratch.path / "hf", train_tokenizer_on_prose(scratch.path / "own.model", scratch.path / "corpus"),
                    384);
  }

  /// A recipe of these stages: targets of 64, 32 and 16 channels, and of 40 and 24.
  std::string recipe(const std::string& stages) const {
    const std::string at = scratch.path.string();
    return "name = \"chain\"\nthreads = 1\n[data]\nheldout_share = 0.08\n[[data.domain]]\nname = \"prose\"\npath = \"" +
           at + "/corpus/prose.jsonl\"\n[tokenizer]\nvocab_size = 384\npath = \"" + at +
           "/hf/tokenizer.model\"\n[model.source]\npreset = \"" + at +
           "/hf\"\n[model.cut_1]\nintermediate_size = 64\n[model.cut_2]\nintermediate_size = "
           "32\n[model.cut_3]\nintermediate_size = 16\n[model.uneven]\n" +
           "intermediate_size = [40, 24]\n" + stages;
  }
};

}  // namespace coppice::test
