// A corpus, a tokenizer and a Hugging Face folder beside them, as a user with a model of his own has them; and the head
// of recipes that name them.
#pragma once

#include <string>
#include <utility>

#include "recipes/language/recipe.h"
#include "src/checkpoint/hf_export.h"
#include "src/model/parameters.h"
#include "src/tokens/tokenizer.h"
#include "src/tokens/tokenizer_training.h"
#include "tests/recipes/program.h"

namespace coppice::test {

/// A corpus, and a model of two layers of 96 channels as another program would leave it.
struct GivenModel {
  Scratch scratch;
  explicit GivenModel(const std::string& name) : scratch(name) {
    write_corpus(scratch.path / "corpus");
    write_tasks(scratch.path);
    bool read = false;
    spill(scratch.path / "own.model", train_tokenizer({.vocab_size = 384}, [&](std::string& line) {
            line = slurp(scratch.path / "corpus/prose.jsonl").substr(0, 4000);
            return !std::exchange(read, true);
          }));
    const Tokenizer tokenizer = Tokenizer::load(scratch.path / "own.model");
    const ModelConfig config{.vocab_size = 384,
                             .hidden_size = 32,
                             .num_hidden_layers = 2,
                             .num_attention_heads = 2,
                             .num_key_value_heads = 1,
                             .head_dim = 16,
                             .intermediate_size = {96, 96}};
    Model model = make_model(config);
    initialise_parameters(config, *model.arena, 3);
    export_hf(scratch.path / "hf", model, tokenizer, "f32");
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
