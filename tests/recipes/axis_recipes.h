// A tiny recipe whose source has something to cut along every axis, and what a recipe is refused for.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "recipes/language/recipe.h"
#include "src/base/errors.h"
#include "tests/recipes/program.h"

namespace coppice::test {

/// 49,504 parameters: 9,296 a layer, of which a group of heads has 1,536 and a channel 96. Tables and stages follow.
inline std::string axis_recipe(const std::string& name) {
  return "name = \"" + name + "\"" + R"(
seed = 7
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
num_hidden_layers = 4
num_attention_heads = 8
num_key_value_heads = 4
head_dim = 8
intermediate_size = 32
[[stage]]
name = "dense"
kind = "train"
model = "source"
tokens = 16384
seq_len = 64
batch_tokens = 512
)";
}

inline Recipe load_text(const fs::path& file, const std::string& text) {
  spill(file, text);
  return load_recipe(file.string(), {}, {});
}

/// What a recipe of this text is refused for: one line.
inline std::string refusal_of(const fs::path& file, const std::string& text) {
  try {
    load_text(file, text);
  } catch (const UserError& error) {
    CHECK(error.code() == ExitCode::recipe);
    const std::string line = error.what();
    CHECK(line.find('\n') == std::string::npos);
    return line;
  }
  return "nothing was refused";
}

}  // namespace coppice::test
